"""Benchmarks: how many tasks a second this machine completes, how long one task takes, and which process uses the CPU.

    python -m lab.bench            everything, three rounds
    python -m lab.bench --quick    PostgreSQL, one ticket shape, about three minutes

Each round starts fresh processes on empty state, in this order: the product on PostgreSQL, DBOS on PostgreSQL, the
product on Redis, the product on SQLite. On a machine that other programs use too, compare figures of one run only.
"""
