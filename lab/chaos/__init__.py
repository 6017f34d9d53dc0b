"""The chaos test: hundreds of tasks under load while every process that can die is killed, again and again.

    python -m lab.chaos [--seed N] [--tasks N] [--minutes N] [--latency S] [--without-journal] [--json FILE]

    plan.py             what is killed or frozen, when and for how long: computed from the seed alone
    load.py             the tickets, how each must end, and the load that submits them
    fault_injector.py   kills, freezes and restarts the processes of a stack as planned
    arm.py              one run: a fresh stack, its load and its outages, until every task has ended
    collect.py          reads what the run left behind: books, bill, journal, histories, executions
    evidence.py         that evidence as values; checks.py and tokens.py compare it with what must hold
    verdict.py          the result: nothing lost, nothing doubled, nothing paid twice without a recorded cause
    report.py           the figures as tables and as JSON

The same tickets are worked several times, each time on a fresh stack: without faults (what they cost when nothing
fails), under the plan, by two workers with a sidecar each of which one at a time is killed or frozen, and, with
--without-journal, under the first plan with a worker whose journal never answers.
"""
