"""Benchmark of the ledger: CPU time and bytes of a task's record, and how long the reports take.

    python -m lab.bench.ledger            10,000, 100,000 and 1,000,000 tasks, on SQLite and on PostgreSQL
    python -m lab.bench.ledger --quick    10,000 tasks only, about two minutes

Tasks are synthetic (`population.py`, `histories.py`); all code after that is the product's. The projector makes records
and charges from histories like Dapr's and from journal rows, saves them in batches of its usual size, and the reading
side sums them. Each size has a separate database, with twelve months of tasks in it.
"""
