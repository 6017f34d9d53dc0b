"""What a crash costs: the same tasks with the same crashes, resumed by the workflow or restarted at step one.

    python -m lab.crash_cost [--seed N] [--tasks N] [--rates 5,15,30] [--quick] [--json] [--figure FILE]

jobs.py           the tasks: sample tickets and mailboxes of 5 to 47 letters; how many, at which kill rates
mailbox.py        the mailbox as another Dapr workflow on the product's packages; mailbox_worker.py is its process
trace.py          where the worker is killed, computed from a seed, and what each kill must make an arm repeat; pure
in_memory.py      runs a process without Dapr; plain_runner.py is the process that restarts at step one
arms.py           both arms: the plain runner with its supervisor, and the product's worker on Dapr
outside.py        the sandbox's bill and books, and the requests that it holds until their worker is dead
spend.py          the bill, and what it costs by the price book
run.py            one kind of task: without kills, then under each trace, in both arms
judging.py        from the bills to the result: what each arm paid twice, beside what the trace predicts; pure
views.py          the result as JSON; table.py and figure.py show it

Both arms run the same process code and the same stages through the same sidecar. One is journalled and replayed, the
other keeps everything in memory.
"""
