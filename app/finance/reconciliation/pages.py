"""Pages of buckets, as OpenAI's and Anthropic's reports are fetched: put in order by their times, and complete. Pure.

Whether a page is missing is told by the buckets' times and by what the pages say of their successors; in which order
they were saved, and into how many files, does not matter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Any

from app.finance.reconciliation.bill import BadBill


@dataclass(frozen=True)
class Page:
    """One answer of a report. place: where it stands. more: whether it says that others follow. whole: whether it is an
    answer as it was given, in which no time is left out; not a list of buckets that somebody made."""

    file: str
    place: str
    data: Sequence[Any]
    more: bool = False
    next_page: str = ""
    whole: bool = True


@dataclass(frozen=True)
class Bucket:
    """One stretch of time with its results; `until` is not in it."""

    page: Page
    place: str
    since: datetime
    until: datetime
    results: Sequence[Any]


Times = Callable[[str, str, Mapping[str, Any]], tuple[datetime, datetime]]


def page_of(file: str, place: str, value: Mapping[str, Any]) -> Page:
    """A page as it was answered. Raises BadBill."""
    data = value["data"]
    if not isinstance(data, list):
        raise BadBill(file, place, f"data is {data!r:.60}, no list", "give the report's answer as it is")
    return Page(file, place, data, bool(value.get("has_more")), str(value.get("next_page") or ""))


def ordered(pages: Sequence[Page], times: Times) -> tuple[Bucket, ...]:
    """All buckets by time. Raises BadBill when one stands twice, or when one is missing."""
    buckets = sorted((each for page in pages for each in _buckets(page, times)), key=lambda each: each.since)
    for left, right in pairwise(buckets):
        if (left.since, left.until) == (right.since, right.until):
            problem = f"bucket {_span(right)} stands in {_named(left, right)} too"
            raise BadBill(right.page.file, right.place, problem, "give it once")
        if left.until > right.since:
            problem = f"its time, {_span(right)}, overlaps that of {_named(left, right)}, {_span(left)}"
            raise BadBill(right.page.file, right.place, problem, "give all pages in buckets of one width")
        if left.until < right.since and left.page.whole and right.page.whole:
            gap = f"{left.until.isoformat()} to {right.since.isoformat()}"
            problem = f"nothing is given from {gap}{_follows(left.page)}"
            raise BadBill(right.page.file, right.place, problem, "add the page that is missing")
    last = buckets[-1].page if buckets else next((page for page in pages if page.more), None)
    if last and last.more:
        problem = f"has_more is true: the export goes on at page {last.next_page!r}"
        raise BadBill(last.file, last.place, problem, "fetch the pages that follow, and give them too")
    return tuple(buckets)


def _buckets(page: Page, times: Times) -> Iterator[Bucket]:
    for number, value in enumerate(page.data):
        place = f"{page.place} data[{number}]" if page.place else f"data[{number}]"
        if not isinstance(value, dict):
            raise BadBill(page.file, place, f"{value!r:.60} is no bucket", "give the report's answer as it is")
        since, until = times(page.file, place, value)
        results = value.get("results")
        if not isinstance(results, list) or not all(isinstance(each, dict) for each in results):
            problem = f"results is {results!r:.60}, no list of results"
            raise BadBill(page.file, f"{place}.results", problem, "give the report's answer as it is")
        if until <= since:
            problem = f"it ends at {until.isoformat()} and begins at {since.isoformat()}"
            raise BadBill(page.file, place, problem, "export it again")
        yield Bucket(page, place, since, until, results)


def _span(bucket: Bucket) -> str:
    return f"{bucket.since.isoformat()} to {bucket.until.isoformat()}"


def _named(one: Bucket, other: Bucket) -> str:
    return one.place if one.page.file == other.page.file else f"{one.page.file}, {one.place}"


def _follows(page: Page) -> str:
    return f"; {page.place or page.file} says that page {page.next_page!r} follows it" if page.more else ""
