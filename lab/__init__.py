"""Measurements and experiments, each on a fresh stack. Nothing in the product imports from here.

python -m lab.bench        tasks a second and latency beside DBOS; lab.bench.ledger, .overhead, .resume, .sizing
python -m lab.chaos        every process killed at random under load
python -m lab.crash_cost   what crashes cost if a task resumes where it was, and if it restarts at step one

They share the ticket factory (tickets.py), the HTTP clients (clients.py) and the exit codes of commands (command.py).
There are three load generators, since each command needs a different load: lab/bench/load.py keeps a number of tasks in
flight without thread overhead; lab/chaos/load.py sends tickets at fixed times and repeats each until the agent, which
may be down, has accepted it; lab/crash_cost/run.py brings each task to the point where it is killed.
"""
