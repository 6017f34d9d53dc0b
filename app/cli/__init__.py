"""The command line: it talks HTTP to the agent; only what reads the record opens the ledger itself.

root.py          the commands and how an error ends one
submit.py tasks.py history.py record.py cost.py failure_cost.py reconcile.py prices.py ledger.py token.py demo.py
doctor.py experiment.py retries.py                     the commands, each with its tables
client.py        the agent's API as methods: address, token, proxies, what became of a request that failed
opening.py       ledger and price book for the commands that read them; days, times and tenants as options
ticket_files.py  JSON Lines and exports of help desks into tickets, bad lines by number
checks.py        what doctor looks at
faults.py        what can end a command, and what is wrong with a field or an option
screen.py        tables, progress and JSON on the terminal, on wide and on narrow screens

A person waits for each start: nothing here imports Dapr, Flask, SQLAlchemy or the agent's parts before a command needs
them, and only `serve` and the commands that read the ledger do.
"""

from __future__ import annotations


def main() -> None:
    """The console command `refund-agent`; ends the process with its exit code."""
    from app.cli.root import cli
    from app.config.private_files import keep_private

    keep_private()
    cli()
