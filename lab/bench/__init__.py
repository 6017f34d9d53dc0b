"""Benchmarks: how many tasks a second this machine works, how long one task takes, and where the CPU goes.

    python -m lab.bench            everything, three rounds
    python -m lab.bench --quick    PostgreSQL, one ticket shape, about three minutes

Every round starts each side's processes anew, on empty state: ours on PostgreSQL, the peer (DBOS on
PostgreSQL), ours on Redis, ours on SQLite. A machine that others use too is noisy: compare within one run.
"""
