"""Measurements and experiments, each on a fresh stack. Nothing in the product imports from here.

python -m lab.bench        tasks a second and latency beside DBOS; lab.bench.ledger, .overhead, .resume, .sizing
python -m lab.chaos        every process killed at random under load
python -m lab.crash_cost   what crashes cost: resumed where the task was, or restarted at step one

They share the ticket factory (tickets.py), the HTTP clients (clients.py) and how a command ends (command.py). There are
three load generators, since each needs another load: lab/bench/load.py keeps a number of tasks in flight and measures
without thread overhead; lab/chaos/load.py sends at fixed times and repeats until an agent that may be down has the
ticket; lab/crash_cost/run.py brings each task to the point of its kill.
"""
