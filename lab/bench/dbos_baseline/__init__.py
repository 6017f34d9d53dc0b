"""The baseline of the benchmark: the same five stages on DBOS, as fast as we can make them, in a separate environment.

Both sides have the same prompts, tools, validations, guards and idempotency keys (all imported from the product), model
and system calls over HTTP, one durable step for each activity, and an intake that checks a bearer token and validates
and redacts the ticket. They differ in two points: DBOS keeps tickets and letters in its own history, the product in its
ledger; and DBOS calls model and systems directly and retries its steps itself, while the product goes through its
sidecar's time-outs, retries and breakers.

`work.py` makes requests and reads answers; `outside.py` calls model and systems; `coroutines.py` and `threads.py` are
the two ways to write the workflow, of which the faster one counts; `serve.py` is the process.
"""
