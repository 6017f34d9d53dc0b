"""Opens the ledger and the price book for the commands that read them, without the agent or Dapr; and their options."""

from __future__ import annotations

import re
import weakref
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.faults import NothingRecorded
from app.domain.errors import ConfigurationError

if TYPE_CHECKING:
    from app.config.settings import Settings
    from app.finance.report_schemas import Selection
    from app.ledger.reading.counting import RequestCounts
    from app.ledger.reading.queries import LedgerQueries
    from app.pricing.book import PriceBook


# The shared options for days, times and tenants. All days and times are UTC.

DAYS = "2026-11-30, 2026-11 (its first day), today, yesterday, or 7d for seven days ago"
TIMES = f"{DAYS}, or 2026-11-30T12:00"
_AGO = re.compile(r"([0-9]{1,5})d")
_TENANT = re.compile(r"[a-z0-9][a-z0-9-]{0,30}")
_KNOWN_NAMED = 20


def day(text: str) -> date:
    """Parses a day in UTC. Raises BadParameter that lists the forms."""
    parsed = _parse_day(text.strip().lower())
    if parsed is None:
        raise typer.BadParameter(f"{text!r} is not a day; write {DAYS}")
    return parsed


def instant(text: str) -> datetime:
    """Parses a time in UTC; a day means its first instant. Raises BadParameter that lists the forms."""
    parsed = _parse_day(text.strip().lower())
    if parsed is not None:
        return datetime(parsed.year, parsed.month, parsed.day, tzinfo=UTC)
    for form in ("%Y-%m-%dt%H:%M", "%Y-%m-%dt%H:%M:%S"):
        try:
            return datetime.strptime(text.strip().lower().removesuffix("z"), form).replace(tzinfo=UTC)
        except ValueError:
            continue
    raise typer.BadParameter(f"{text!r} is not a time; write {TIMES}")


def tenant_name(text: str) -> str:
    """Checks a tenant's id. Raises BadParameter if it is invalid."""
    if not _TENANT.fullmatch(text):
        raise typer.BadParameter(f"{text!r} is not a tenant's id, which has small letters, digits and -, such as acme")
    return text


Since = Annotated[
    date | None, typer.Option(parser=day, metavar="DAY", help=f"The first day: {DAYS}.", show_default=False)
]
Until = Annotated[
    date | None,
    typer.Option(parser=day, metavar="DAY", help="The day after the last one, in the same form.", show_default=False),
]
SinceTime = Annotated[
    datetime | None, typer.Option("--since", parser=instant, metavar="TIME", help=f"From this time on: {TIMES}.")
]
UntilTime = Annotated[
    datetime | None, typer.Option("--until", parser=instant, metavar="TIME", help="Before this time, in the same form.")
]
Tenant = Annotated[
    str | None, typer.Option(parser=tenant_name, metavar="TENANT", help="Only this tenant's.", show_default=False)
]


def selection(since: date | None, until: date | None, tenant: str | None) -> Selection:
    """The options as a selection. Raises BadParameter if it contains no day."""
    from app.finance.report_schemas import Selection

    if since and until and since >= until:
        raise typer.BadParameter(f"--until {until} is not after --since {since}; the day of --until is not included")
    return Selection(since=since, until=until, tenants=(tenant,) if tenant else None)


def tenants(chosen: Selection) -> frozenset[str] | None:
    """The selected tenants for a ledger query; None for all."""
    return None if chosen.tenants is None else frozenset(chosen.tenants)


def require_known_tenants(chosen: Selection, records: LedgerQueries) -> None:
    """Raises NothingRecorded, with the names of the recorded tenants, if a selected tenant has no records."""
    recorded = records.tenants()
    unknown = sorted((tenants(chosen) or frozenset()) - recorded)
    if not unknown:
        return
    named = sorted(recorded)[:_KNOWN_NAMED]
    more = f" and {len(recorded) - len(named):,} more" if len(recorded) > len(named) else ""
    remedy = f"the ledger has {', '.join(named)}{more}" if recorded else "nor for any other: work a ticket (`make up`)"
    raise NothingRecorded(f"nothing is recorded for tenant {', '.join(unknown)}; {remedy}")


def period_text(since: date | None, until: date | None) -> str:
    """The days as a phrase that follows a verb: ` since 2026-11-01 before 2026-12-01`; empty without bounds."""
    return "".join([f" since {since}" if since else "", f" before {until}" if until else ""])


def _parse_day(text: str) -> date | None:
    today = datetime.now(UTC).date()
    ago = _AGO.fullmatch(text)
    try:
        if text in ("today", "yesterday") or ago:
            return today - timedelta(days=int(ago[1]) if ago else int(text == "yesterday"))
        if re.fullmatch(r"[0-9]{4}-[0-9]{2}(-[0-9]{2})?", text):
            return date.fromisoformat(text if len(text) == len("2026-11-30") else f"{text}-01")
    except (ValueError, OverflowError):
        pass  # no such day
    return None


Prices = Annotated[
    Path | None,
    typer.Option(
        "--prices",
        metavar="FILE",
        help="Another price file.  [env: REFUND_AGENT_PRICES_FILE]",
        show_default=False,
    ),
]


def open_records() -> LedgerQueries:
    """Opens the ledger of the settings. Raises ConfigurationError if there is none."""
    url = settings_with_ledger().database_url
    from app.ledger.reading.queries import LedgerQueries
    from app.ledger.store.database import connect

    engine = connect(url)
    records = LedgerQueries(engine)
    weakref.finalize(records, engine.dispose)  # commands do not close it
    return records


def open_requests() -> RequestCounts:
    """Counts the requests of each step and model in the ledger of the settings. Raises ConfigurationError if there is
    none."""
    url = settings_with_ledger().database_url
    from app.ledger.reading.counting import request_counts
    from app.ledger.store.database import connect

    engine = connect(url)
    try:
        return request_counts(engine)
    finally:
        engine.dispose()


def settings_with_ledger() -> Settings:
    """The settings. Raises ConfigurationError if their ledger file does not exist, since reading must not create it."""
    from app.config.settings import load

    settings = load()
    if not has_ledger(settings):
        raise ConfigurationError(
            f"no ledger: {_ledger_file(settings)} is not there; "
            "work a ticket first (`make up`), or set REFUND_AGENT_STATE_DIR or REFUND_AGENT_LEDGER_URL"
        )
    return settings


def has_ledger(settings: Settings) -> bool:
    """Whether the ledger's file exists; always true for a database server."""
    file = _ledger_file(settings)
    return file is None or file.exists()


def _ledger_file(settings: Settings) -> Path | None:
    """The file of a SQLite ledger; None for a database server, or for SQLite in memory."""
    scheme, _, path = settings.database_url.partition(":///")
    if not scheme.startswith("sqlite") or path in ("", ":memory:"):
        return None
    return Path(path.partition("?")[0]).absolute()


def open_book(path: Path | None) -> PriceBook:
    """The price book of the file, by default that of the settings. Raises BadParameter, ConfigurationError."""
    from app.config.settings import load as load_settings
    from app.pricing.book import load

    return load(existing_prices_file(path) or load_settings().prices_file)


def existing_prices_file(path: Path | None) -> Path | None:
    """The value of --prices. Raises BadParameter if there is no such file."""
    return existing_file(path, "--prices", "a price file, such as config/prices.yaml")


def existing_file(path: Path | None, option: str, what: str) -> Path | None:
    """The value of an option that names a file. Raises BadParameter if there is no such file; `what` describes it."""
    if path is not None and not path.is_file():
        is_ = "is a folder" if path.is_dir() else "is not there"
        raise typer.BadParameter(f"{path} {is_}; name {what}", param_hint=option)
    return path
