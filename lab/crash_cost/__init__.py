"""What a crash costs: the same tasks, the same crashes, resumed by the workflow or begun again at step one.

    python -m lab.crash_cost [--seed N] [--tasks N] [--rates 5,15,30] [--quick] [--json] [--figure FILE]

jobs.py           the tasks: sample tickets, and mailboxes of as many letters as wanted (47 steps)
mailbox.py        the mailbox as another Dapr workflow on the product's packages; mailbox_worker.py its process
trace.py          where the worker is killed: made from a seed alone, the same for both arms; pure
theory.py         what each kill must make either arm repeat; pure
in_memory.py      runs a process without Dapr; plain_runner.py is the process that begins again at step one
restarting.py     that arm: the plain runner and the supervisor that starts it again
durable.py        the other arm: the product's worker on Dapr
outside.py        the sandbox's bill and books, and the requests that it holds until their worker is dead
spend.py          the bill, and what it costs by the price book
run.py            one kind of task: clean, then under each trace, in both arms
plan.py           which kinds, how many, which rates
views.py          the result as JSON; table.py and figure.py show it

Both arms run the same process code and the same stages, through the same sidecar. One is journalled and replayed, the
other keeps all in memory.
"""
