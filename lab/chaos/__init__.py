"""The chaos test: hundreds of tasks under load while all processes are killed at seeded times.

    python -m lab.chaos [--seed N] [--tasks N] [--minutes N] [--latency S] [--without-journal] [--json FILE]

    plan.py             which processes are killed or frozen, when and for how long; computed from the seed
    load.py             the tickets with their expected results, and the load that submits them
    fault_injector.py   kills, freezes and restarts the processes of a stack as planned
    arm.py              one run on a fresh stack: load and outages, until all tasks have ended
    collect.py          reads the evidence of a run: books, bill, journal, histories, executions
    evidence.py         the types of the evidence; checks.py and tokens.py check it
    verdict.py          the result: nothing lost, nothing doubled, nothing paid twice without a recorded cause
    report.py           the figures as tables and as JSON

The same tickets are worked in several runs, each on a fresh stack: without faults, which gives their cost if nothing
fails; with the planned outages; with two workers, each with a sidecar, of which one process at a time is killed or
frozen; and, with --without-journal, with the planned outages and a worker whose journal never answers.
"""
