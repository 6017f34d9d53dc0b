"""What every reading command and every answer of the API say of one fixed ledger.

`ledger.jsonl.gz` holds its rows, written by `python -m tests.golden.record` from the running product, and `bill.json`
what the sandbox billed meanwhile. `expected/` holds the answers: `python -m tests.golden.answers` writes them again, so
a change of output is seen in the diff.
"""
