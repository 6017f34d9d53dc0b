"""docs/cost-model.md documents every dimension, and every JSON key of the reading commands."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from app.finance.failures.failure_schemas import FailureCostView
from app.finance.price_schemas import CheckView, PricesView, RepricingView
from app.finance.report_schemas import CountedReportView, ReportView
from app.finance.rollup import Dimension
from app.ledger.audit.ledger_check import CheckedView, RebuiltView
from app.ledger.reading.record_schemas import RecordView
from app.web.api.messages import CostQuery
from tests.paths import ROOT

DOCUMENT = (ROOT / "docs" / "cost-model.md").read_text()
SECTION = DOCUMENT.split("### JSON\n")[1].split("\n## ")[0]
VIEWS: tuple[type[BaseModel], ...] = (
    RecordView,
    ReportView,
    CountedReportView,
    RepricingView,
    PricesView,
    FailureCostView,
    CheckView,
    CheckedView,
    RebuiltView,
)


def keys(model: type[BaseModel]) -> Iterator[str]:
    """The keys of a model and of the models in its fields."""
    for name, field in model.model_fields.items():
        yield name
        for inner in models_in(field.annotation):
            yield from keys(inner)


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from models_in(argument)


@pytest.mark.parametrize("view", VIEWS)
def test_every_key_is_documented(view: type[BaseModel]) -> None:
    documented = set(re.findall(r"`([a-z_]+)`", SECTION))
    assert set(keys(view)) - documented == set()


def test_every_documented_key_is_one() -> None:
    documented = set(re.findall(r"`([a-z]+_[a-z_]+)`", SECTION))
    assert documented <= {key for view in VIEWS for key in keys(view)}


def test_every_dimension_is_documented() -> None:
    for dimension in Dimension:
        assert f"`{dimension}`" in DOCUMENT.split("The dimensions are")[1].split("\n\n")[0]
        assert CostQuery(by=dimension.value).dimensions == (dimension,)
