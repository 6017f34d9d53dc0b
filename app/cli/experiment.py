"""`refund-agent experiment ...`: controlled experiments, each a process of the checkout on a stack of its own.

The agent does not import them: they start sandbox, Dapr and worker on free ports, and need the checkout for that.
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

commands = typer.Typer(help="Controlled experiments on a stack of their own.", no_args_is_help=True)


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
    """What crashes cost: the same tasks and kills, resumed by the workflow and begun again at step one, by the
    sandbox's bill.  About ten minutes."""
    chosen = {"--tasks": tasks, "--rates": rates, "--output": _from_here(output), "--figure": _from_here(figure)}
    words = [word for name, value in chosen.items() if value is not None for word in (name, str(value))]
    flags = ["--quick"] * quick + ["--json"] * as_json
    _become("lab.crash_cost", ["--seed", str(seed), *words, *flags])


def _from_here(file: Path | None) -> Path | None:
    """As seen from this folder: the experiment runs in the checkout's."""
    return None if file is None else file.absolute()


def _become(module: str, words: list[str]) -> NoReturn:
    """Replaces this process, so that signals and the exit code are the experiment's own. Raises ConfigurationError."""
    if not (CHECKOUT / "lab").is_dir():
        raise ConfigurationError(
            f"experiments need the project's checkout, and {CHECKOUT} is none; "
            "clone the project, run `make setup` there, and use its .venv/bin/refund-agent"
        )
    os.chdir(CHECKOUT)
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-m", module, *words])  # noqa: S606 - the arguments are already apart
