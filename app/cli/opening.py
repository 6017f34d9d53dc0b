"""Opens the ledger and the price book for the reading commands: they work while nothing runs."""

from __future__ import annotations

import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.domain.errors import ConfigurationError

if TYPE_CHECKING:
    from app.config.settings import Settings
    from app.ledger.reading.counting import Asked
    from app.ledger.reading.queries import LedgerQueries
    from app.pricing.book import PriceBook

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


def open_requests() -> Asked:
    """How often steps asked, by the ledger of this machine's settings. Raises ConfigurationError when there is none."""
    url = settings_with_ledger().database_url
    from app.ledger.reading.counting import asked
    from app.ledger.store.database import connect

    engine = connect(url)
    try:
        return asked(engine)
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
