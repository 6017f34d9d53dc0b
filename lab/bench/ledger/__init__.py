"""The ledger under years of work: what a task's record takes in time and bytes, and how long the reports take.

    python -m lab.bench.ledger            10,000, 100,000 and 1,000,000 tasks, on SQLite and on PostgreSQL
    python -m lab.bench.ledger --quick    10,000 tasks only, about two minutes

Tasks are made up (`population.py`, `histories.py`), but everything after that is the product's: the projector makes
the records and the charges from Dapr-like histories and journal rows, saves them in batches as large as it does at
work, and the reading side sums them. Each size has a database of its own, with twelve months of work in it.
"""
