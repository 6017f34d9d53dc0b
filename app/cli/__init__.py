"""The command line: it talks HTTP to the agent; only what reads the record opens the ledger itself.

root.py       the commands and how an error ends one
client.py     the agent's API as methods
http.py       how it asks, past proxies, and whether a request that failed was sent
connection.py where the agent is and which token opens it
ticket_files.py  JSON Lines into tickets, bad lines by number
intake.py     many tickets at once: in order per task, at a rate, with patience
watch.py      follows tasks until they rest
screen.py     tables, progress and JSON on the terminal
layout.py     how a table becomes lines, on wide and on narrow screens; pure
judging.py    a demo run against what must come of the samples; pure
checks.py components.py   what doctor looks at
faults.py     what can end a command
period.py     days, times and tenants as options
showing.py    a task in words, and what to do next; pure
wording.py    what is wrong with a field, in our words; pure
token.py secrets_file.py   tokens for people, in this machine's secret file
figures.py    money, tokens and times for people, each with how it is known; pure
opening.py    ledger and price book for the commands that read the record
report.py     the tables of `cost report`; repriced.py with --prices
submit.py tasks.py history.py record.py cost.py failure_cost.py reconcile.py prices.py ledger.py demo.py doctor.py
              experiment.py serve.py    the commands

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
