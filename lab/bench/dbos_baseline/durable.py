"""DBOS's decorators, typed, with the retries that all steps have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

from dbos import DBOS

Function = TypeVar("Function", bound=Callable[..., Any])


def step(function: Function) -> Function:
    """A durable step with up to four attempts. The first pause is half a second, each further one twice as long."""
    durable = DBOS.step(retries_allowed=True, max_attempts=4, interval_seconds=0.5, backoff_rate=2.0)
    return cast(Function, durable(function))


def workflow(function: Function) -> Function:
    """A durable workflow."""
    return cast(Function, DBOS.workflow()(function))
