"""`refund-agent experiment ...`: controlled experiments, each in a separate process and on a separate stack.

They start sandbox, Dapr and worker on free ports, which needs the checkout.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

import app
from app.cli.client import AsJson
from app.domain.errors import ConfigurationError

CHECKOUT = Path(app.__file__).resolve().parents[1]

commands = typer.Typer(help="Runs controlled experiments on a separate stack.", no_args_is_help=True)


@commands.command("crash-cost")
def crash_cost(
    seed: Annotated[int, typer.Option(help="Same seed: same tasks, same kills, same bill.")] = 7,
    tasks: Annotated[
        int | None, typer.Option(min=1, help="Refund tickets.  [default: 100; 20 with --quick]", show_default=False)
    ] = None,
    rates: Annotated[
        str | None,
        typer.Option(
            metavar="PERCENT,...", help="Tasks to kill.  [default: 5,15,30; 15,30 with --quick]", show_default=False
        ),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Few tasks and two rates, about two minutes.")] = False,
    output: Annotated[
        Path | None, typer.Option(help="The JSON file.  [default: in .state/experiments]", show_default=False)
    ] = None,
    figure: Annotated[
        Path | None, typer.Option(help="The SVG file.  [default: in .state/experiments]", show_default=False)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measures what crashes cost by the sandbox's bill: the same tasks and kills, once resumed by the workflow and once
    restarted from zero.  About ten minutes."""
    options = {"--tasks": tasks, "--rates": rates, "--output": _absolute(output), "--figure": _absolute(figure)}
    words = [word for name, value in options.items() if value is not None for word in (name, str(value))]
    flags = ["--quick"] * quick + ["--json"] * as_json
    _exec_module("lab.crash_cost", ["--seed", str(seed), *words, *flags])


def _absolute(file: Path | None) -> Path | None:
    """The path made absolute, since the experiment runs in the checkout's folder."""
    return None if file is None else file.absolute()


def _exec_module(module: str, words: list[str]) -> NoReturn:
    """Replaces this process, so that signals reach the experiment and its exit code is the command's.

    Raises ConfigurationError outside of a checkout."""
    if not (CHECKOUT / "lab").is_dir():
        raise ConfigurationError(
            f"experiments need the project's checkout, and {CHECKOUT} is not one; "
            "clone the project, run `make setup` there, and use its .venv/bin/refund-agent"
        )
    os.chdir(CHECKOUT)
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-m", module, *words])  # noqa: S606 - the arguments are already apart
