"""The list of commands, and the reporting of errors: one line on stderr with the remedy, exit code 1 (usage: 2).

With `--json`, that line is a JSON object.
"""

from __future__ import annotations

import errno
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from app import __version__
from app.cli import cost, demo, doctor, experiment, history, ledger, prices, provider, record, submit, tasks, token
from app.cli.faults import AgentRefused, reword
from app.cli.screen import complain
from app.domain.errors import ConfigurationError, RefundAgentError
from app.domain.models import Frozen


def serve() -> None:
    """Runs the agent, worker and web, in this process beside its Dapr sidecar, until SIGTERM or SIGINT."""
    from app.bootstrap import serve as run
    from app.config.settings import load

    run(load())


NAME = "refund-agent"
WRONG_USAGE = "wrong_usage"  # the code of an invalid command line
_RUN_AS_OWNER = "run this as the user who started the agent, or set REFUND_AGENT_STATE_DIR to a folder of yours"
_REMEDIES = {
    errno.EACCES: _RUN_AS_OWNER,
    errno.EPERM: _RUN_AS_OWNER,
    errno.EROFS: "it is on a disk that is mounted read-only; name another folder with REFUND_AGENT_STATE_DIR",
    errno.ENOSPC: "its disk is full; make room",
}
_HELP_CHARACTERS = 1_000  # enough that no command's first sentence is cut in the list of commands


class CommandProblem(Frozen):
    """The JSON form of the error that ended a command: like the API's problem (RFC 9457), with an exit code. `status`
    is the HTTP status if the agent refused, else null."""

    code: str
    title: str
    detail: str
    status: int | None
    exit_code: int


class Commands(TyperGroup):
    """A group of commands whose help lists the full first sentence of each command."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Writes the list of commands into the help text."""
        commands = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl(
                [(name, command.get_short_help_str(_HELP_CHARACTERS)) for name, command in commands if command]
            )


class _Root(Commands):
    def main(self, args: Sequence[str] | None = None, **options: Any) -> Any:  # type: ignore[override]
        """Runs a command and ends the process."""
        words = list(sys.argv[1:] if args is None else args)
        try:
            code = super().main(words, **options | {"prog_name": NAME, "standalone_mode": False})
        except RefundAgentError as error:
            code = _report(error, as_json="--json" in words)
        except typer.TyperException as error:
            code = _report_usage(error, as_json="--json" in words)
        except typer.Abort:
            complain("Aborted.")
            code = 1
        except Exception as error:
            problem = _file_problem(error) if isinstance(error, OSError) else _ledger_problem(error)
            if problem is None:
                raise
            code = _report(problem, as_json="--json" in words)
        sys.exit(code if isinstance(code, int) else 0)


def _file_problem(error: OSError) -> RefundAgentError | None:
    """The error as a problem with a named file; None if it names no file."""
    if error.filename is None:
        return None
    remedy = _REMEDIES.get(error.errno or 0, "check the file")
    return ConfigurationError(f"{error.filename}: {(error.strerror or type(error).__name__).lower()}; {remedy}")


def _ledger_problem(error: Exception) -> RefundAgentError | None:
    """The error as a problem of the ledger's database; None for any other error, which is a bug."""
    from app.ledger.store.database import trouble

    return trouble(error)


def _report(error: RefundAgentError, *, as_json: bool) -> int:
    line = " ".join(str(error).split())
    status = error.refusal if isinstance(error, AgentRefused) else None
    _complain_as_json(error.code, error.title, line, status, 1) if as_json else complain(f"error: {line}")
    return 1


def _report_usage(error: typer.TyperException, *, as_json: bool) -> int:
    error.message = reword(error.message)
    if as_json:
        line = " ".join(error.format_message().split())
        _complain_as_json(WRONG_USAGE, "Wrong usage", line, None, error.exit_code)
    else:
        error.show()  # type: ignore[attr-defined]  # every usage error has it
    return error.exit_code


def _complain_as_json(code: str, title: str, detail: str, status: int | None, exit_code: int) -> None:
    problem = CommandProblem(code=code, title=title, detail=detail, status=status, exit_code=exit_code)
    typer.echo(problem.model_dump_json(), err=True)


cli = typer.Typer(
    name=NAME,
    cls=_Root,
    help="Processes support tickets as durable tasks.  Exit codes: 0 success, 1 something is wrong, 2 usage.",
    no_args_is_help=True,
    rich_markup_mode=None,  # plain text: faster, and help texts keep their brackets
    pretty_exceptions_enable=False,  # pretty tracebacks print the values of variables
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"{NAME} {__version__}")
        raise typer.Exit


@cli.callback()
def root(
    _version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Processes support tickets as durable tasks.  Exit codes: 0 success, 1 something is wrong, 2 usage."""


cli.command("serve")(serve)
cli.command("submit")(submit.submit)
tasks.commands.command("history")(history.history)
cli.add_typer(tasks.commands, name="task", cls=Commands)
cli.command("record")(record.record)
cli.add_typer(cost.commands, name="cost", cls=Commands)
cli.add_typer(prices.commands, name="price", cls=Commands)
cli.add_typer(provider.commands, name="provider", cls=Commands)
cli.add_typer(ledger.commands, name="ledger", cls=Commands)
cli.add_typer(token.commands, name="token", cls=Commands)
cli.command("demo")(demo.demo)
cli.add_typer(doctor.commands, name="doctor", cls=Commands)
cli.add_typer(experiment.commands, name="experiment", cls=Commands)
