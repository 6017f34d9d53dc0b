"""The product of all layers for the shipped files, and for each change that increases it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from app.config import policy
from app.config.policy import Retries
from app.domain.errors import ConfigurationError
from app.finance.retry_bounds import sidecar_files, worst
from app.finance.retry_bounds.worst import LongestRequest, Over, RequestPrice, Worst, most_expensive, pauses
from tests.paths import ROOT
from tests.pricing.makers import agreement, price_book

POLICY = ROOT / "config" / "policy.yaml"
LIMITS = policy.retry_limits(POLICY)
BILLED = policy.losses(POLICY).billed_attempts
NOW = datetime(2026, 11, 22, tzinfo=UTC)
Change = tuple[str, str, str]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the sidecar's files."""
    for name in ("components", "resiliency"):
        shutil.copytree(ROOT / name, tmp_path / name)
    return tmp_path


def worst_cases_of(folder: Path, prices: dict[str, RequestPrice] | None = None) -> dict[str, Worst]:
    """The worst case of each target, by name."""
    folders = [folder / "components", folder / "resiliency"]
    policies = sidecar_files.policies(folders, "agent")
    assert [finding for finding in policies.findings if finding.wrong] == []
    targets = sidecar_files.targets(folders, "agent")
    return {
        worst_case.target.name: worst_case
        for worst_case in worst.worst(targets, policies, policy.load(POLICY), BILLED, prices or {})
    }


def change(folder: Path, file: str, old: str, new: str) -> None:
    """Replaces a text in a file."""
    path = folder / file
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def test_the_files_as_shipped_stay_below_their_limits() -> None:
    worst_cases = worst_cases_of(ROOT)
    assert {name: (worst_case.requests, worst_case.per_task) for name, worst_case in worst_cases.items()} == {
        "llm": (30, 180),
        "accounts": (90, 90),
        "orders": (90, 1440),
        "policies": (90, 1440),
        "refunds": (90, 270),
        "notifications": (90, 90),
        "cases": (90, 180),
    }
    assert {name: worst_case.over(LIMITS) for name, worst_case in worst_cases.items()} == dict.fromkeys(worst_cases, ())
    assert {name: worst_case.notes for name, worst_case in worst_cases.items()} == dict.fromkeys(worst_cases, ())


def test_the_time_is_every_attempt_at_its_longest_and_every_pause() -> None:
    worst_cases = worst_cases_of(ROOT)
    pause = pauses(policy.load(POLICY).retries)
    assert pause == timedelta(seconds=2 + 4 + 8 + 16 + 32 + 64 + 128 + 256 + 21 * 300)
    assert worst_cases["llm"].until_parked == 30 * timedelta(seconds=60) + pause
    of_sidecar = timedelta(seconds=1.5 * (0.5 + 0.75))
    both = 3 * timedelta(seconds=5 + 10) + 2 * of_sidecar
    assert worst_cases["accounts"].until_parked == 30 * both + pause
    both = 3 * timedelta(seconds=15 + 10) + 2 * of_sidecar
    assert worst_cases["refunds"].until_parked == worst_cases["cases"].until_parked == 30 * both + pause


def test_pauses_grow_to_their_limit() -> None:
    assert pauses(Retries(first_seconds=1, max_seconds=5, attempts=5)) == timedelta(seconds=2 + 4 + 5 + 5)
    assert pauses(Retries(first_seconds=1, max_seconds=5, attempts=1)) == timedelta()


REPEATED = "    retries:\n      llm: {policy: constant, duration: 1s, maxRetries: 1}\n    circuitBreakers:\n"
RETRY = ("resiliency/llm.yaml", "          timeout: llm\n", "          timeout: llm\n          retry: llm\n")
ENDLESS = REPEATED.replace(", maxRetries: 1", "")
MODEL_CHANGES: tuple[tuple[str, tuple[Change, ...], int | None, tuple[Over, ...]], ...] = (
    ("one repeat", (("resiliency/llm.yaml", "    circuitBreakers:\n", REPEATED), RETRY), 60, (Over.REQUESTS,)),
    ("endless", (("resiliency/llm.yaml", "    circuitBreakers:\n", ENDLESS), RETRY), None, (Over.REQUESTS, Over.TIME)),
    ("no time-out", (("resiliency/llm.yaml", "          timeout: llm\n", ""),), 30, (Over.TIME,)),
    (
        "late",
        (("resiliency/llm.yaml", "llm: 60s", "llm: 10m"), ("resiliency/llm.yaml", "interval: 120s", "interval: 20m")),
        30,
        (Over.TIME,),
    ),
    ("mistral", (("components/llm.yaml", "conversation.openai", "conversation.mistral"),), 150, (Over.REQUESTS,)),
    ("bedrock", (("components/llm.yaml", "conversation.openai", "conversation.aws.bedrock"),), 90, (Over.REQUESTS,)),
    ("anthropic", (("components/llm.yaml", "conversation.openai", "conversation.anthropic"),), 30, ()),
    ("nobody knows", (("components/llm.yaml", "conversation.openai", "conversation.new"),), None, (Over.REQUESTS,)),
)


@pytest.mark.parametrize("what", MODEL_CHANGES, ids=lambda what: what[0])
def test_each_layer_of_a_model_counts(
    folder: Path, what: tuple[str, tuple[Change, ...], int | None, tuple[Over, ...]]
) -> None:
    _, changes, requests, over = what
    for arguments in changes:
        change(folder, *arguments)
    worst_case = worst_cases_of(folder)["llm"]
    assert (worst_case.requests, worst_case.over(LIMITS)) == (requests, over)
    assert worst_case.per_task == (None if requests is None else requests * 6)


def test_a_model_with_sidecar_retries_has_notes(folder: Path) -> None:
    often = REPEATED.replace("1s", "100ms").replace(": 1}", ": 4}")
    change(folder, "resiliency/llm.yaml", "    circuitBreakers:\n", often)
    change(folder, *RETRY)
    said = " ".join(worst_cases_of(folder)["llm"].notes)
    for text in ("also retries refused requests", "first pause is shorter", "the record counts one retry"):
        assert text in said


def test_the_agent_gives_up_a_system_without_its_own_bound(folder: Path) -> None:
    change(folder, "resiliency/systems.yaml", "        maxRetries: 2\n", "")
    change(folder, "resiliency/systems.yaml", "policy: exponential", "policy: constant")
    worst_case = worst_cases_of(folder)["accounts"]
    assert worst_case.requests is None
    assert worst_case.over(LIMITS) == (Over.REQUESTS, Over.TIME)
    assert worst_case.until_parked == 30 * timedelta(seconds=90 + 90) + pauses(policy.load(POLICY).retries)


def test_a_target_without_policies_gets_one_request_for_each_attempt_and_notes(folder: Path) -> None:
    for file in (folder / "resiliency").glob("*.yaml"):
        file.unlink()
    worst_cases = worst_cases_of(folder)
    assert (worst_cases["orders"].requests, worst_cases["llm"].requests) == (30, 30)
    assert worst_cases["llm"].until_parked is None
    assert all(worst_case.notes[:2] == ("no time-out", worst_case.notes[1]) for worst_case in worst_cases.values())
    assert all("no circuit breaker" in worst_case.notes[1] for worst_case in worst_cases.values())


def test_a_raised_number_of_attempts_counts(folder: Path) -> None:
    rules = policy.load(POLICY)
    more = rules.model_copy(update={"retries": Retries(first_seconds=1, max_seconds=300, attempts=40)})
    folders = [folder / "components", folder / "resiliency"]
    (model, *_) = worst.worst(
        sidecar_files.targets(folders, "agent"), sidecar_files.policies(folders, "agent"), more, BILLED, {}
    )
    assert (model.requests, model.over(LIMITS)) == (40, (Over.REQUESTS, Over.TIME))


def test_the_most_expensive_model_is_priced_by_currency_and_unpriced_models_are_named() -> None:
    book = price_book(
        agreement(id="cheap", model="cheap", per_million_tokens={"input": "1", "output": "2"}),
        agreement(id="dear", model="dear", per_million_tokens={"input": "10", "output": "30"}),
        agreement(id="euro", model="euro", per_million_tokens={"input": "5", "output": "5"}, currency="EUR"),
    )
    models = [("conversation.openai", name) for name in ("cheap", "dear", "euro", "unheard-of", "")]
    price = most_expensive(book, models, LongestRequest(10_000, 1_000), NOW)
    assert price.amounts == {"USD": Decimal("0.13"), "EUR": Decimal("0.055")}
    assert price.models == ("dear", "euro")
    assert price.unpriced == ("(none)", "unheard-of")


def test_money_is_the_price_of_every_request_that_may_be_billed_and_its_limit_is_the_currencys(folder: Path) -> None:
    price = RequestPrice({"USD": Decimal("0.0833"), "EUR": Decimal(5)}, ("dear",))
    worst_case = worst_cases_of(folder, {"llm": price})["llm"]
    assert worst_case.money == {"USD": Decimal("0.2499"), "EUR": Decimal(15)}
    assert worst_case.over(LIMITS) == (), "a currency without a limit has none"
    assert worst_cases_of(folder, {"llm": RequestPrice({"USD": Decimal("0.0834")})})["llm"].over(LIMITS) == (
        Over.MONEY,
    )


def test_a_name_in_only_one_kind_of_file_is_a_finding(folder: Path) -> None:
    change(folder, "components/systems.yaml", "  name: orders\n", "  name: order\n")
    change(folder, "resiliency/llm.yaml", "      llm:\n        outbound:", "      lmm:\n        outbound:")
    folders = [folder / "components", folder / "resiliency"]
    policies = sidecar_files.policies(folders, "agent")
    names = worst.unknown_names(
        sidecar_files.targets(folders, "agent"), policies, policy.load(POLICY), sidecar_files.components(folders)
    )
    said = {(finding.where, finding.wrong) for finding in names}
    assert said == {("step lookup_order", True), ("apps.orders", False), ("components.lmm", False)}


def test_a_second_document_of_a_file_is_not_read_by_daprd(folder: Path) -> None:
    file = folder / "resiliency" / "llm.yaml"
    file.write_text(f"{file.read_text()}---\n{file.read_text().replace('60s', '1s')}")
    policies = sidecar_files.policies([folder / "resiliency"], "agent")
    assert policies.timeouts["llm"] == timedelta(seconds=60)
    assert [finding.wrong for finding in policies.findings] == [True]


def respell(folder: Path, old: str, new: str) -> None:
    file = folder / "resiliency" / "llm.yaml"
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new, 1))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda folder: (folder / "resiliency" / "llm.yaml").write_text("a: [1\n"), r"llm.yaml:2: not valid YAML"),
        (lambda folder: (folder / "resiliency" / "llm.yaml").write_bytes(b"\xff"), r"llm.yaml: is not text in UTF-8"),
        (
            lambda folder: respell(folder, "maxRequests: 1", "maxRequests: 01"),
            r"llm.yaml:\d+: .*01 is not a plain decimal",
        ),
        (lambda folder: respell(folder, "maxRequests: 1", "maxRequests: 0x1"), r"0x1 is not a plain decimal number"),
        (
            lambda folder: respell(folder, "maxRequests: 1", "maxRequests: !!timestamp x"),
            r"'x' does not fit the tag timestamp",
        ),
        (lambda folder: shutil.rmtree(folder / "resiliency"), r"resiliency is not a folder; run this in"),
    ],
)
def test_a_file_that_cannot_be_read_is_an_error_with_the_remedy(
    folder: Path, spoil: Callable[[Path], object], said: str
) -> None:
    spoil(folder)
    with pytest.raises(ConfigurationError, match=said):
        sidecar_files.policies([folder / "resiliency"], "agent")
