"""The peer: the same five stages on DBOS, as good as DBOS allows. It runs in a virtual environment of its own.

What is the same on both sides: prompts, tools, validations, guards, idempotency keys (all imported from the
product), model calls and system calls over HTTP, one durable step for each activity, a bearer token and a
validated, redacted ticket at the door. What is not: DBOS keeps tickets and letters in its own history, where
the product keeps them in its ledger; and DBOS calls model and systems directly, where the product goes
through its sidecar's time-outs, retries and breakers (DBOS retries its steps itself).

`work.py` is pure; `outside.py` calls model and systems; `coroutines.py` and `threads.py` are the two ways to
write the workflow, of which the quicker one counts; `serve.py` is the process.
"""
