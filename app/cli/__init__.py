"""The command line. It speaks HTTP to the agent; the commands that read the record open the ledger directly.

root.py          the list of commands, and how an error is reported
submit.py tasks.py history.py record.py cost.py failure_cost.py reconcile.py prices.py ledger.py token.py demo.py
doctor.py experiment.py provider.py retries.py         the commands, each with its tables
client.py        the agent's API as methods: address, token, proxies, failed requests
opening.py       opens ledger and price book; options for days, times and tenants
ticket_files.py  reads tickets from JSON Lines and help desk exports; names bad lines by number
checks.py        the checks of `doctor`
faults.py        the errors of commands, and messages about wrong fields and options
screen.py        tables, progress and JSON, for wide and narrow terminals

Each start must be quick, so Dapr, Flask, SQLAlchemy and the agent's parts are imported only inside the commands that
need them: `serve` and those that read the ledger.
"""

from __future__ import annotations


def main() -> None:
    """Runs the console command `refund-agent` and ends the process with its exit code."""
    from app.cli.root import cli
    from app.config.private_files import keep_private

    keep_private()
    cli()
