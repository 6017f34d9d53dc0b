"""The chaos test: hundreds of tasks under load while every process that can die is killed, again and again.

    python -m lab.chaos [--seed N] [--tasks N] [--minutes N] [--latency S] [--without-journal] [--json FILE]

    plan.py      what is killed or frozen, when, for how long: made from the seed alone
    twins.py     two workers with a sidecar each, on PostgreSQL
    tickets.py   what is asked for, and how each ticket must end
    arm.py       one run: a stack of its own, its load, its outages, until all tasks have come to their end
    collect.py   what the run has left behind: books, bill, journal, histories, executions
    verdict.py   what that proves: nothing lost, nothing doubled, nothing paid twice without a name
    report.py    the figures, as tables and as JSON

The same tickets are worked several times, each on a stack and a state of its own: without faults (what they cost when
nothing fails), under the plan, by two workers with a sidecar each, of which one at a time is killed or stands still,
and, when asked for, under the first plan with a worker whose journal never answers.
"""
