"""Alerts and dashboard ask for metrics that there are, in a language that Prometheus reads."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import promql_parser
import pytest
import yaml

from app.telemetry.metrics import Live, Metrics
from runtime import paths

FOLDER = paths.ROOT / "k8s" / "monitoring"
# Those of daprd that are asked for: tests/whole/test_outages.py has it write them.
OF_THE_SIDECAR = {"dapr_resiliency_cb_state"}
RULES = yaml.safe_load((FOLDER / "alerts.yaml").read_text())["groups"][0]["rules"]
PANELS = json.loads((FOLDER / "dashboard.json").read_text())["panels"]


def expressions() -> Iterator[tuple[str, str]]:
    """Every query with what it is for."""
    yield from ((rule["alert"], rule["expr"]) for rule in RULES)
    for panel in PANELS:
        yield from ((panel["title"], target["expr"].replace("$__rate_interval", "5m")) for target in panel["targets"])


def ours() -> set[str]:
    """The names of all of the agent's own series."""
    one: Any = lambda: 1  # noqa: E731
    live = Live(**dict.fromkeys(Live.__dataclass_fields__, one))
    told = set(re.findall(r"^# TYPE (\S+) (\S+)$", Metrics(live).render().decode(), re.MULTILINE))
    return {f"{name}_bucket" if kind == "histogram" else name for name, kind in told}


@pytest.mark.parametrize(("what", "expression"), list(expressions()))
def test_every_query_is_one_and_asks_for_what_there_is(what: str, expression: str) -> None:
    promql_parser.parse(expression)
    asked = set(re.findall(r"\b(?:refund_agent|dapr)_\w+", expression))
    assert asked
    assert asked <= ours() | OF_THE_SIDECAR, what


def test_what_is_no_query_is_found() -> None:
    with pytest.raises(ValueError, match="unclosed"):
        promql_parser.parse("sum(rate(refund_agent_tasks_total[5m])")


def test_every_alert_says_what_to_do() -> None:
    for rule in RULES:
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert {"summary", "remedy"} == rule["annotations"].keys()


def test_no_panel_lies_on_another() -> None:
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in PANELS]
    assert len(set(places)) == len(places)
    assert all(panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24 for panel in PANELS)
