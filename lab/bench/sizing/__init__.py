"""How big it must be, and what is the limit first.

    python -m lab.bench.sizing             measures what a task costs in each part, on PostgreSQL; about four minutes
    python -m lab.bench.sizing simulate    computes agents, databases and schedulers for 10 to 100,000 tasks a minute

`measurement.py` measures, `demand.py` multiplies, `simulation.py` lets tasks arrive at random and a provider fail.
`docs/scale.md` has the result, `docs/scale.json` the measured figures behind it.
"""
