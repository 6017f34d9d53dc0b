"""The commands, and how an error ends one: one line on stderr with the remedy, exit code 1 (usage: 2)."""

from __future__ import annotations

import typer
from typer.core import TyperGroup

from app.cli import cost, demo, doctor, experiment, ledger, prices, record, serve, submit, tasks
from app.errors import RefundAgentError


class _OneLineErrors(TyperGroup):
    def invoke(self, ctx: typer.Context) -> object:  # type: ignore[override]  # typer's own context class
        try:
            return super().invoke(ctx)
        except RefundAgentError as error:
            typer.echo(f"error: {' '.join(str(error).split())}", err=True)
            raise typer.Exit(1) from None


cli = typer.Typer(
    name="refund-agent",
    cls=_OneLineErrors,
    help="Works support tickets as durable tasks.  Exit codes: 0 fine, 1 something is wrong, 2 usage.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # plain text: quicker, and brackets in a help text stay
    pretty_exceptions_enable=False,  # its tracebacks print the values of variables
    context_settings={"help_option_names": ["-h", "--help"]},
)
cli.command("serve")(serve.serve)
cli.command("submit")(submit.submit)
cli.add_typer(tasks.commands, name="task")
cli.command("record")(record.record)
cli.add_typer(cost.commands, name="cost")
cli.add_typer(prices.commands, name="price")
cli.add_typer(ledger.commands, name="ledger")
cli.command("demo")(demo.demo)
cli.add_typer(doctor.commands, name="doctor")
cli.add_typer(experiment.commands, name="experiment")
