"""The command `python -m lab.crash_cost`: runs all loads, prints the tables, writes JSON and figure."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

from rich.console import Console

from app.config import settings
from app.domain.errors import ConfigurationError
from app.pricing import book
from app.pricing.book import PriceBook
from lab.bench import machine
from lab.command import exit_code
from lab.crash_cost import figure, jobs, judging, table, trace
from lab.crash_cost.jobs import Job, Load
from lab.crash_cost.judging import CleanRun, TraceRuns
from lab.crash_cost.run import Scene
from lab.crash_cost.spend import Prices
from lab.crash_cost.trace import Arm
from lab.crash_cost.views import Assumptions, CrashCostView, LoadView
from runtime import paths
from runtime.errors import UserError
from runtime.stack import Stack

_FOLDER = paths.STATE / "experiments"
MAILBOX_WORKER = (str(paths.VENV_PYTHON), "-m", "lab.crash_cost.mailbox_worker")
# The type of the Dapr component behind which the sandbox speaks OpenAI's protocol.
_PROVIDER = "conversation.openai"
console = Console(stderr=True)


def main() -> int:
    """Returns exit code 1 if a run failed. A missed goal is a result, not a failure."""
    options = _options()
    return exit_code(lambda: _run(options), "crash-cost")


def _run(options: argparse.Namespace) -> None:
    result = run_experiment(options.seed, options.tasks, options.rates, _say, quick=options.quick)
    document = json.dumps(result.model_dump(mode="json"), indent=2) + "\n"
    for file, text in ((options.output, document), (options.figure, figure.figure(result))):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
        _say(f"written to {file}")
    if options.json:
        sys.stdout.write(document)
    else:
        table.show(Console(width=200), result)


def run_experiment(
    seed: int, tasks: int, rates: Sequence[float], say: Callable[[str], None], *, quick: bool
) -> CrashCostView:
    """Runs all loads: tickets on the product's worker, mailboxes on their own worker. `say` prints progress."""
    started = time.monotonic()
    price_book = _load_price_book()
    prices = Prices(price_book, _PROVIDER)
    loads = _run_loads((jobs.ticket_load(tasks, rates),), seed, prices, say, None)
    loads += _run_loads(jobs.mailbox_loads(tasks, rates, quick=quick), seed, prices, say, MAILBOX_WORKER)
    return CrashCostView(
        seed=seed,
        seconds=round(time.monotonic() - started, 1),
        currency=prices.currency,
        price_id=prices.price_id,
        book_digest=price_book.digest,
        machine=machine.hardware()
        | {"daprd": machine.daprd()}
        | {name: version(name) for name in ("dapr-ext-workflow", "genai-prices")},
        assumptions=Assumptions(
            on_the_way_seconds=trace.ON_THE_WAY_SECONDS,
            model_seconds=trace.MODEL_SECONDS,
            system_seconds=trace.SYSTEM_SECONDS,
        ),
        loads=loads,
    )


def _load_price_book() -> PriceBook:
    """Loads the user's price book, then removes the user's settings from the environment, so that the stacks use their
    own ledger and prices. Raises UserError."""
    try:
        price_book = book.load(settings.load().prices_file)
    except ConfigurationError as error:
        raise UserError(str(error)) from None
    for name in [name for name in os.environ if name.startswith(settings.PREFIX)]:
        del os.environ[name]
    return price_book


def _run_loads(
    loads: Sequence[Load], seed: int, prices: Prices, say: Callable[[str], None], worker: Sequence[str] | None
) -> tuple[LoadView, ...]:
    jobs = [load.jobs(seed) for load in loads]  # raises for too many tickets before anything is started
    with tempfile.TemporaryDirectory(prefix="crash-cost-") as folder, open_scene(Path(folder), worker, say) as scene:
        return tuple(_run_load(scene, load, own, seed, prices) for load, own in zip(loads, jobs, strict=True))


@contextmanager
def open_scene(folder: Path, worker: Sequence[str] | None, say: Callable[[str], None]) -> Iterator[Scene]:
    """Both arms on a stack in `folder`. `worker` replaces the command of the product's worker."""
    with Stack(folder, worker=worker) as stack:
        scene = Scene(stack, folder / "plain", say)
        try:
            yield scene
        finally:
            scene.close()


def _run_load(scene: Scene, load: Load, jobs: Sequence[Job], seed: int, prices: Prices) -> LoadView:
    clean = scene.run_clean(jobs, load.name)
    runs = []
    for rate in load.rates:
        points = _points(load, seed, rate, clean)
        label = f"{load.name}-{rate:g}"
        by_arm = {arm: scene.run_with_kills(arm, jobs, points, clean, label) for arm in Arm}
        runs.append(TraceRuns(rate, points, by_arm))
    return judging.judge(load, clean, runs, prices)


def _points(load: Load, seed: int, rate: float, clean: CleanRun) -> tuple[trace.Point, ...]:
    if load.after_model_calls:
        return tuple(trace.after_all_model_calls(job, timeline) for job, timeline in clean.timelines.items())
    return trace.trace(f"{seed} {load.name}", rate / 100, clean.timelines)


def _say(line: str) -> None:
    console.print(line, highlight=False, soft_wrap=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m lab.crash_cost",
        description="What crashes cost if tasks resume, and if they restart at step one.",
    )
    parser.add_argument("--seed", type=int, default=7, help="equal seeds give equal tasks, kills and bills")
    parser.add_argument("--tasks", type=int, help=f"refund tickets; default {jobs.TASKS}, quick {jobs.QUICK_TASKS}")
    parser.add_argument(
        "--rates", type=_percents, metavar="PERCENT,...", help="percentages of tasks to kill; default 5,15,30"
    )
    parser.add_argument("--quick", action="store_true", help="few tasks, two rates, no other mailbox lengths")
    parser.add_argument("--json", action="store_true", help="print the result as JSON instead of tables")
    parser.add_argument("--output", type=Path, default=_FOLDER / "crash-cost.json", help="the JSON file")
    parser.add_argument("--figure", type=Path, default=_FOLDER / "crash-cost.svg", help="the SVG file")
    options = parser.parse_args()
    options.tasks = options.tasks or (jobs.QUICK_TASKS if options.quick else jobs.TASKS)
    options.rates = options.rates or (jobs.QUICK_RATES if options.quick else jobs.RATES)
    if options.tasks < 1:
        parser.error(f"--tasks {options.tasks} is less than one task")
    return options


def _percents(text: str) -> tuple[float, ...]:
    """Parses `5,15,30`. Raises ArgumentTypeError."""
    try:
        rates = tuple(float(part) for part in text.split(","))
    except ValueError:
        rates = ()
    if not rates or not all(0 < rate <= 100 for rate in rates):
        raise argparse.ArgumentTypeError(
            f"'{text}' is no list of percentages above 0 and up to 100; write it as 5,15,30"
        )
    return rates


if __name__ == "__main__":
    sys.exit(main())
