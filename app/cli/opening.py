"""Opens the ledger and the price book for the reading commands: they work while nothing runs."""

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


# The options for days, times and the tenant that commands share, in words that a person would use. UTC.

DAYS = "2026-11-30, 2026-11 (its first day), today, yesterday, or 7d for seven days ago"
TIMES = f"{DAYS}, or 2026-11-30T12:00"
_AGO = re.compile(r"([0-9]{1,5})d")
_TENANT = re.compile(r"[a-z0-9][a-z0-9-]{0,30}")
_KNOWN_NAMED = 20


def day(text: str) -> date:
    """A day, in UTC. Raises BadParameter that says what a day looks like."""
    parsed = _day(text.strip().lower())
    if parsed is None:
        raise typer.BadParameter(f"{text!r} is no day; a day is {DAYS}")
    return parsed


def instant(text: str) -> datetime:
    """A moment, or the first of a day, in UTC. Raises BadParameter that says what a time looks like."""
    parsed = _day(text.strip().lower())
    if parsed is not None:
        return datetime(parsed.year, parsed.month, parsed.day, tzinfo=UTC)
    for form in ("%Y-%m-%dt%H:%M", "%Y-%m-%dt%H:%M:%S"):
        try:
            return datetime.strptime(text.strip().lower().removesuffix("z"), form).replace(tzinfo=UTC)
        except ValueError:
            continue
    raise typer.BadParameter(f"{text!r} is no time; a time is {TIMES}")


def tenant_name(text: str) -> str:
    """A tenant's id. Raises BadParameter for what can be none."""
    if not _TENANT.fullmatch(text):
        raise typer.BadParameter(f"{text!r} can be no tenant; a tenant is small letters, digits and -, such as acme")
    return text


Since = Annotated[
    date | None, typer.Option(parser=day, metavar="DAY", help=f"The first day: {DAYS}.", show_default=False)
]
Until = Annotated[
    date | None,
    typer.Option(parser=day, metavar="DAY", help="The day after the last one, written likewise.", show_default=False),
]
SinceTime = Annotated[
    datetime | None, typer.Option("--since", parser=instant, metavar="TIME", help=f"From then on: {TIMES}.")
]
UntilTime = Annotated[
    datetime | None, typer.Option("--until", parser=instant, metavar="TIME", help="Until before then, likewise.")
]
Tenant = Annotated[
    str | None, typer.Option(parser=tenant_name, metavar="TENANT", help="Only this tenant's.", show_default=False)
]


def selection(since: date | None, until: date | None, tenant: str | None) -> Selection:
    """Days and tenant of the options. Raises BadParameter for days that hold nothing."""
    from app.finance.report_schemas import Selection

    if since and until and since >= until:
        raise typer.BadParameter(f"--until {until} is not after --since {since}; the day of --until is not among them")
    return Selection(since=since, until=until, tenants=(tenant,) if tenant else None)


def tenants(chosen: Selection) -> frozenset[str] | None:
    """The tenants as the ledger takes them."""
    return None if chosen.tenants is None else frozenset(chosen.tenants)


def known_tenants(chosen: Selection, records: LedgerQueries) -> None:
    """Raises NothingRecorded for a tenant of which nothing was ever recorded, and names those there are."""
    unknown = sorted((tenants(chosen) or frozenset()) - (recorded := records.tenants()))
    if unknown:
        raise NothingRecorded(f"nothing is recorded for tenant {', '.join(unknown)}; {_those_there_are(recorded)}")


def _those_there_are(recorded: frozenset[str]) -> str:
    if not recorded:
        return "nor for any other: work a ticket first (`make up`)"
    named = sorted(recorded)[:_KNOWN_NAMED]
    return f"the ledger has {', '.join(named)}" + (
        f" and {len(recorded) - len(named):,} more" * (len(recorded) > len(named))
    )


def when(since: date | None, until: date | None) -> str:
    """The days in words, as they follow on what happened; empty for all there are."""
    return "".join([f" since {since}" if since else "", f" before {until}" if until else ""])


def _day(text: str) -> date | None:
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
    """The ledger of this machine's settings. Raises ConfigurationError when there is none."""
    url = settings_with_ledger().database_url
    from app.ledger.reading.queries import LedgerQueries
    from app.ledger.store.database import connect

    engine = connect(url)
    records = LedgerQueries(engine)
    weakref.finalize(records, engine.dispose)  # a command reads, and is done
    return records


def open_requests() -> RequestCounts:
    """How often steps asked, by the ledger of this machine's settings. Raises ConfigurationError when there is none."""
    url = settings_with_ledger().database_url
    from app.ledger.reading.counting import request_counts
    from app.ledger.store.database import connect

    engine = connect(url)
    try:
        return request_counts(engine)
    finally:
        engine.dispose()


def settings_with_ledger() -> Settings:
    """The settings. Raises ConfigurationError when they name a ledger file that is not there: reading makes none."""
    from app.config.settings import load

    settings = load()
    if not has_ledger(settings):
        raise ConfigurationError(
            f"no ledger: {_ledger_file(settings)} is not there; "
            "work a ticket first (`make up`), or set REFUND_AGENT_STATE_DIR or REFUND_AGENT_LEDGER_URL"
        )
    return settings


def has_ledger(settings: Settings) -> bool:
    """Whether there is a ledger to read; a server's is believed to be."""
    file = _ledger_file(settings)
    return file is None or file.exists()


def _ledger_file(settings: Settings) -> Path | None:
    """The file of a SQLite ledger; None for a server's, or one in memory."""
    scheme, _, path = settings.database_url.partition(":///")
    if not scheme.startswith("sqlite") or path in ("", ":memory:"):
        return None
    return Path(path.partition("?")[0]).absolute()


def open_book(path: Path | None) -> PriceBook:
    """The price book of that file, else of the settings' one. Raises ConfigurationError."""
    from app.config.settings import load as load_settings
    from app.pricing.book import load

    return load(given_prices(path) or load_settings().prices_file)


def given_prices(path: Path | None) -> Path | None:
    """The file that --prices names. Raises BadParameter where there is none."""
    return there(path, "--prices", "a price file, such as config/prices.yaml")


def there(path: Path | None, option: str, what: str) -> Path | None:
    """The file that an option names. Raises BadParameter where there is none: nobody but the caller can mend that."""
    if path is not None and not path.is_file():
        is_ = "is a folder" if path.is_dir() else "is not there"
        raise typer.BadParameter(f"{path} {is_}; name {what}", param_hint=option)
    return path
