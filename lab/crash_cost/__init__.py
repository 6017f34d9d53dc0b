"""Measures what crashes cost: the same tasks with the same crashes, resumed by the workflow or restarted at step one.

    python -m lab.crash_cost [--seed N] [--tasks N] [--rates 5,15,30] [--quick] [--json] [--figure FILE]

jobs.py           the tasks: sample tickets and mailboxes of 5 to 47 letters; their numbers and kill rates
mailbox.py        the mailbox, a second Dapr workflow on the product's packages; mailbox_worker.py is its process
trace.py          where a worker is killed, by a seed, and which requests each kill makes an arm repeat
in_memory.py      runs a workflow without Dapr; plain_runner.py is the process that restarts at step one
arms.py           both arms: the plain runner with its supervisor, and the product's worker on Dapr
outside.py        the sandbox's bill and books, and requests that it holds until their worker is killed
spend.py          sums the bill and prices it by the price book
run.py            runs one kind of task without kills, then with each trace, in both arms
judging.py        computes the result from the bills: what each arm repeated, and what the trace predicts
views.py          the result as JSON; table.py and figure.py show it

Both arms run the same workflow code and the same stages through the same sidecar. Dapr records and replays one; the
other keeps everything in memory.
"""
