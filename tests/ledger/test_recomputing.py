"""A script that uses only the ledger's raw rows and the price file computes exactly the same cost of a thousand random
tasks."""

from __future__ import annotations

import datetime as dt
import json
import random
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.finance.rollup import Dimension, Group
from app.ledger.recording.sources import Sources
from app.ledger.store import database
from app.pricing import book
from app.pricing.charge_types import Charge
from tests.dapr.history.told import T0
from tests.ledger.conftest import Databases
from tests.ledger.kit import NAMING, Ledger
from tests.ledger.stories import OPENAI, Story, story
from tests.pricing import recompute
from tests.pricing.makers import agreement, tariff
from tests.pricing.test_recompute import random_price, random_tokens

CHANGE = dt.date(2026, 11, 23)
MODELS = tuple(f"model-{number}" for number in range(6))  # the last one has no price
TASKS = 1000
LATER = T0 + dt.timedelta(days=30)


def random_prices(dice: random.Random) -> dict[str, Any]:
    """Finance's price file: every price changes once, in the middle of the period."""
    return {
        "list_prices": {"version": "1", "checked": CHANGE, "source": "the list"},
        "stale_after_days": 90,
        "retention_months": "1.5",
        "agreements": [random_model(dice, name, when) for name in MODELS[:-1] for when in ("before", "after")],
        "infrastructure": [
            tariff(id="before", to=CHANGE),
            tariff(id="after", compute_per_second="0.0000137", writes_per_million="0.625", **{"from": CHANGE}),
        ],
    }


def random_model(dice: random.Random, name: str, when: str) -> dict[str, Any]:
    """One model's prices, before or after the change."""
    period = {"to": CHANGE} if when == "before" else {"from": CHANGE}
    base = random_tokens(dice)
    dearer = {kind: random_price(dice) for kind in base}
    tier = {"above_input_tokens": dice.randint(1_000, 20_000), "per_million_tokens": dearer}
    return agreement(
        id=f"{name}-{when}",
        provider=OPENAI,
        model=name,
        currency=dice.choice(["USD", "EUR"]),
        per_million_tokens=base,
        tiers=dice.choice([[], [tier]]),
        discount_percent=str(dice.randint(0, 99)),
        **period,
    )


@pytest.fixture(scope="module")
def prices_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The path of the price file."""
    file = tmp_path_factory.mktemp("prices") / "prices.yaml"
    file.write_text(yaml.safe_dump(random_prices(random.Random(20_261_122))))
    return file


@pytest.fixture(scope="module")
def filled(databases: Databases, prices_file: Path) -> Iterator[Ledger]:
    """Records random tasks, a third of them also before their end."""
    engine = database.connect(databases.migrated("sqlite"))
    fill(Ledger(engine), prices_file)
    yield Ledger(engine)
    engine.dispose()


def fill(ledger: Ledger, prices_file: Path) -> None:
    """A ledger with a thousand tasks, saved fifty at a time."""
    dice = random.Random(7)
    stories = {f"t{seed % 7}:T-{seed}": story(seed, f"t{seed % 7}:T-{seed}", MODELS) for seed in range(TASKS)}
    known = {name: told.at(turn_of(told, dice), dt.timedelta(seconds=1)) for name, told in stories.items()}
    sources = Sources(ledger.engine, lambda name: known[name].run, book.load(prices_file), NAMING, lambda: LATER)
    names = list(stories)
    for start in range(0, TASKS, 50):
        some = names[start : start + 50]
        ledger.journal([call for name in some for call in known[name].calls])
        written = sources.written(some)
        ledger.save(*(sources.record(known[name].run, written[name]) for name in some))


def turn_of(told: Story, dice: random.Random) -> int:
    """The last turn, or a random one."""
    return dice.choice([len(told.turns) - 1, len(told.turns) - 1, dice.randrange(len(told.turns))])


def added(charges: Iterable[Charge]) -> dict[str, dict[str, Fraction]]:
    """Cost by task and currency, summed here from the single charges and not by the product."""
    found: dict[str, dict[str, Fraction]] = defaultdict(lambda: defaultdict(Fraction))
    for charge in charges:
        found[charge.task_id][
            charge.currency if charge.currency and charge.contracted_cost is not None else "unknown"
        ] += Fraction(1) if charge.contracted_cost is None else Fraction(charge.contracted_cost)
    return found


def reported(group: Group) -> dict[str, Fraction]:
    """Cost by task and currency according to a report."""
    sums = {each.currency: Fraction(each.contracted_cost) for each in group.money}
    return sums | {"unknown": Fraction(group.unreported + group.unpriced)}


def real(sums: dict[str, Any]) -> dict[str, Fraction]:
    """The amounts other than zero."""
    return {name: Fraction(value) for name, value in sums.items() if Fraction(value)}


def test_a_thousand_recorded_tasks_cost_the_same_by_an_independent_reckoning(filled: Ledger, prices_file: Path) -> None:
    script, ledger_file = str(recompute.__file__), str(filled.engine.url.database)
    command = [sys.executable, script, ledger_file, str(prices_file)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    theirs = {task: real(sums) for task, sums in json.loads(done.stdout).items()}
    charges = list(filled.records.charges())
    assert len(theirs) == TASKS
    assert {task: real(sums) for task, sums in added(charges).items()} == {
        task: sums for task, sums in theirs.items() if sums
    }
    report = filled.records.report([Dimension.TASK])
    assert {group.key[0]: real(reported(group)) for group in report.groups} == {
        task: sums for task, sums in theirs.items() if sums
    }
    for currency in ("USD", "EUR", "unknown"):
        assert reported(report.total)[currency] == sum(sums.get(currency, 0) for sums in theirs.values()) > 0


def test_the_ledger_has_something_of_everything(filled: Ledger) -> None:
    """The ledger covers every case; otherwise the comparison would prove little."""
    charges = list(filled.records.charges())
    by_kind = {kind: sum(charge.kind == kind for charge in charges) for kind in ("model", "compute", "orchestration")}
    assert min(by_kind.values()) > TASKS
    assert sum(charge.wasted for charge in charges) > TASKS
    assert len({charge.price_id for charge in charges}) > 15
    assert len({charge.at.date() for charge in charges}) > 3
