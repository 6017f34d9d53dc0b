"""How large an installation a number of tasks a minute needs, and which part reaches its limit first.

    python -m lab.bench.sizing             measures what a task costs in each part, on PostgreSQL; about four minutes
    python -m lab.bench.sizing simulate    computes agents, databases and schedulers for 10 to 100,000 tasks a minute

`measurement.py` measures a task, `demand.py` multiplies by the rate, `simulation.py` simulates random arrivals and an
outage of the provider. The results are in `docs/scale.md`, the measured figures in `docs/scale.json`.
"""
