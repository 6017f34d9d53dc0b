"""The commands, and how an error ends one: one line on stderr with the remedy, exit code 1 (usage: 2).

With `--json` that line is one JSON object, so that a program need not read two languages.
"""

from __future__ import annotations

import errno
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from app import __version__
from app.cli import cost, demo, doctor, experiment, history, ledger, prices, record, submit, tasks, token
from app.cli.faults import AgentRefused, in_our_words
from app.cli.screen import complain
from app.domain.errors import ConfigurationError, RefundAgentError
from app.domain.models import Frozen

# `refund-agent serve`: the one command that is the agent itself.


def serve() -> None:
    """Runs the worker and the web in this process, beside its Dapr sidecar, until it is told to stop."""
    from app.bootstrap import serve as run
    from app.config.settings import load

    run(load())


NAME = "refund-agent"
WRONG_USAGE = "wrong_usage"  # the code of words on a command line that cannot be understood
_NOT_YOURS = "run this as the user who started the agent, or set REFUND_AGENT_STATE_DIR to a folder that is yours"
_REMEDIES = {
    errno.EACCES: _NOT_YOURS,
    errno.EPERM: _NOT_YOURS,
    errno.EROFS: "it lies on a disk that is mounted read-only; name another folder with REFUND_AGENT_STATE_DIR",
    errno.ENOSPC: "its disk is full; make room",
}
_NEVER_CUT = 1_000  # characters of the line that the list of commands has for each


class CommandProblem(Frozen):
    """What ended a command, for programs: the API's problem (RFC 9457) with an exit code. `status`: the HTTP status of
    an agent that refused; null where none did."""

    code: str
    title: str
    detail: str
    status: int | None
    exit_code: int


class Commands(TyperGroup):
    """A group of commands whose list says each one's first sentence in full."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Writes the list into the help text."""
        named = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl([(name, command.get_short_help_str(_NEVER_CUT)) for name, command in named if command])


class _Root(Commands):
    def main(self, args: Sequence[str] | None = None, **options: Any) -> Any:  # type: ignore[override]
        """Runs a command and ends the process."""
        words = list(sys.argv[1:] if args is None else args)
        try:
            code = super().main(words, **options | {"prog_name": NAME, "standalone_mode": False})
        except RefundAgentError as error:
            code = _tell(error, as_json="--json" in words)
        except typer.TyperException as error:
            code = _tell_usage(error, as_json="--json" in words)
        except typer.Abort:
            complain("Aborted.")
            code = 1
        except Exception as error:
            problem = _of_a_file(error) if isinstance(error, OSError) else _of_the_ledger(error)
            if problem is None:
                raise
            code = _tell(problem, as_json="--json" in words)
        sys.exit(code if isinstance(code, int) else 0)


def _of_a_file(error: OSError) -> RefundAgentError | None:
    """A file that this user may not read or write, or that cannot be; None for an error of something else."""
    if error.filename is None:
        return None
    remedy = _REMEDIES.get(error.errno or 0, "look at what is wrong with it")
    return ConfigurationError(f"{error.filename}: {(error.strerror or type(error).__name__).lower()}; {remedy}")


def _of_the_ledger(error: Exception) -> RefundAgentError | None:
    """What an error of the database means; None for a fault of ours."""
    from app.ledger.store.database import trouble

    return trouble(error)


def _tell(error: RefundAgentError, *, as_json: bool) -> int:
    line = " ".join(str(error).split())
    status = error.refusal if isinstance(error, AgentRefused) else None
    _complain_as_json(error.code, error.title, line, status, 1) if as_json else complain(f"error: {line}")
    return 1


def _tell_usage(error: typer.TyperException, *, as_json: bool) -> int:
    error.message = in_our_words(error.message)
    if as_json:
        line = " ".join(error.format_message().split())
        _complain_as_json(WRONG_USAGE, "Wrong usage", line, None, error.exit_code)
    else:
        error.show()  # type: ignore[attr-defined]  # whatever is wrong with words on a command line has it
    return error.exit_code


def _complain_as_json(code: str, title: str, detail: str, status: int | None, exit_code: int) -> None:
    problem = CommandProblem(code=code, title=title, detail=detail, status=status, exit_code=exit_code)
    typer.echo(problem.model_dump_json(), err=True)


cli = typer.Typer(
    name=NAME,
    cls=_Root,
    help="Works support tickets as durable tasks.  Exit codes: 0 fine, 1 something is wrong, 2 usage.",
    no_args_is_help=True,
    rich_markup_mode=None,  # plain text: quicker, and brackets in a help text stay
    pretty_exceptions_enable=False,  # its tracebacks print the values of variables
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _say_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"{NAME} {__version__}")
        raise typer.Exit


@cli.callback()
def root(
    _version: Annotated[
        bool, typer.Option("--version", help="Say which version this is.", callback=_say_version, is_eager=True)
    ] = False,
) -> None:
    """Works support tickets as durable tasks.  Exit codes: 0 fine, 1 something is wrong, 2 usage."""


cli.command("serve")(serve)
cli.command("submit")(submit.submit)
tasks.commands.command("history")(history.history)
cli.add_typer(tasks.commands, name="task", cls=Commands)
cli.command("record")(record.record)
cli.add_typer(cost.commands, name="cost", cls=Commands)
cli.add_typer(prices.commands, name="price", cls=Commands)
cli.add_typer(ledger.commands, name="ledger", cls=Commands)
cli.add_typer(token.commands, name="token", cls=Commands)
cli.command("demo")(demo.demo)
cli.add_typer(doctor.commands, name="doctor", cls=Commands)
cli.add_typer(experiment.commands, name="experiment", cls=Commands)
