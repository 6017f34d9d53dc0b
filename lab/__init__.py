"""What is measured and tried on stacks of their own. Nothing in the product imports from here.

python -m lab.bench        tasks a second and latency beside DBOS; lab.bench.ledger, .overhead, .resume, .sizing
python -m lab.chaos        every process killed at random under load
python -m lab.crash_cost   what crashes cost: resumed where it was, or begun again at step one
"""
