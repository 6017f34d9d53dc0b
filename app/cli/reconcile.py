"""`refund-agent cost reconcile`: compares the record with the provider's bill, to the token."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.client import MODEL_URL, AsJson
from app.cli.opening import SinceTime, UntilTime, open_book, settings_with_ledger
from app.cli.screen import Column, ColumnKind, Wide, complain, figures, name, say, show_json, show_table
from app.domain.formatting import minute

if TYPE_CHECKING:
    from app.finance.reconciliation.bill import Count
    from app.finance.reconciliation.parsing import Bill
    from app.finance.reconciliation.reconciliation_types import BillFinding, Reconciliation

SHOWN_ROWS = 50
_CELLS: tuple[Column | str, ...] = (
    *name("model", "from (UTC)"),
    *figures("record", "of it estimated", "bill", "difference"),
    Column("why", ColumnKind.PROSE),
    *figures("unexplained"),
)
_FINDINGS: tuple[Column | str, ...] = (
    Column("why", ColumnKind.PROSE),
    *name("task", "stage"),
    Column("call", spare=2),
    Column("on the bill", spare=1),
    *figures("record", "bill", "difference"),
)
BillFile = Annotated[
    Path | None,
    typer.Option(
        "--bill",
        metavar="FILE",
        help="The bill, a file or a folder: OpenAI's or Anthropic's usage by model or costs (JSON), CSV with a header, "
        "or the sandbox's.  [default: read from the sandbox]",
        show_default=False,
    ),
]
MoreFiles = Annotated[
    list[Path] | None,
    typer.Argument(metavar="[FILE]...", help="More of the bill's files: pages, parts, its costs.", show_default=False),
]
_SUFFIXES = (".json", ".jsonl", ".csv", ".tsv", ".txt")
SandboxUrl = Annotated[str, typer.Option("--sandbox-url", help="The sandbox's model server.")]


def reconcile(
    bill: BillFile = None,
    more: MoreFiles = None,
    since: SinceTime = None,
    until: UntilTime = None,
    sandbox_url: SandboxUrl = MODEL_URL,
    wide: Wide = False,
    as_json: AsJson = False,
) -> None:
    """Compares the record with the provider's bill; exit code 1 if tokens or money of either are unexplained."""
    from app.finance.reconciliation.reconciliation_schemas import reconciliation_view

    if since and until and since >= until:
        raise typer.BadParameter(f"--until {until:%Y-%m-%dT%H:%M} is not after --since {since:%Y-%m-%dT%H:%M}")
    settings_with_ledger()  # reports a missing ledger before a bill is fetched
    files = [*([bill] if bill else []), *(more or [])]
    whole = _bill_from_files(files) if files else _bill_from_sandbox(sandbox_url)
    reconciliation = _compare(whole.within(since, until))
    if as_json:
        show_json(reconciliation_view(reconciliation))
    else:
        _show(reconciliation)
    if not files:
        for hint in _other_endpoint_hints(reconciliation):
            complain(hint)
    if not reconciliation.agrees:
        raise typer.Exit(1)


def _other_endpoint_hints(reconciliation: Reconciliation) -> Iterator[str]:
    """Hints about calls that went to another endpoint than the sandbox. They are recognised by their model, of which
    the sandbox's bill has no request; their component's type may be the same."""
    from app.finance.reconciliation.reconciliation_types import DifferenceCause

    billed = {reconciliation.same_model.get(row.model, row.model) for row in reconciliation.bill.rows}
    calls = [finding.call for finding in reconciliation.findings if finding.cause is DifferenceCause.NOT_ON_BILL]
    counts = Counter((call.component, call.model) for call in calls if call and call.model not in billed)
    for (component, model), count in sorted(counts.items()):
        yield (
            f"note: the bill is the sandbox's ({reconciliation.bill.name}), which has no request of model "
            f"{model or '(none)'}: {count:,} calls of component {component} went to another endpoint; "
            "give its bill with --bill FILE"
        )


def _compare(bill: Bill) -> Reconciliation:
    from app.ledger.reading.comparing import compare
    from app.ledger.store.database import connect

    engine = connect(settings_with_ledger().database_url)
    try:
        return compare(engine, open_book(None), bill)
    finally:
        engine.dispose()


def _bill_from_files(paths: Sequence[Path]) -> Bill:
    from app.finance.reconciliation.parsing import parse_bills

    return parse_bills([_text(file) for path in paths for file in _files(path)])


def _files(path: Path) -> list[Path]:
    """The files that a path means: itself, the bill-like files of a folder, or the matches of a pattern."""
    from app.finance.reconciliation.parsing import BadBill

    if any(sign in path.name for sign in "*?[") and not path.exists():  # a quoted pattern, not expanded by the shell
        return sorted(path.parent.glob(path.name)) or [path]
    if not path.is_dir():
        return [path]
    files = sorted(file for file in path.iterdir() if file.is_file() and file.suffix.lower() in _SUFFIXES)
    if not files:
        problem = f"the folder has no file that ends with {', '.join(_SUFFIXES)}"
        raise BadBill(str(path), "", problem, "give the path of the provider's bill")
    return files


def _text(path: Path) -> tuple[str, str]:
    from app.finance.reconciliation.parsing import BadBill, text_of

    try:
        return str(path), text_of(str(path), path.read_bytes())
    except OSError as error:
        raise BadBill(str(path), "", f"{error.strerror}", "give the path of the provider's bill") from None


def _bill_from_sandbox(url: str) -> Bill:
    """The sandbox's bill up to now. The comparison then leaves out the agent's later calls."""
    import httpx

    from app.cli import client
    from app.cli.faults import AgentAway, NotUnderstood
    from app.finance.reconciliation.parsing import parse_bill

    address = f"{url.rstrip('/')}/bill"
    now = datetime.now(UTC)
    try:
        answer = client.get(address, 30).raise_for_status()
    except httpx.RequestError as error:
        raise AgentAway(
            f"the sandbox's bill does not answer at {address} ({type(error).__name__}); start it with `make up`, name "
            "another with --sandbox-url, or give a provider's bill with --bill FILE"
        ) from None
    except httpx.HTTPStatusError as error:
        raise NotUnderstood(
            f"{address} answers with status {error.response.status_code}, not with a bill; check --sandbox-url"
        ) from None
    return parse_bill(address, answer.text).within(None, now)


def _show(reconciliation: Reconciliation) -> None:
    from app.finance.reconciliation.reconciliation_texts import remarks, verdict

    say(verdict(reconciliation))
    for remark in remarks(reconciliation):
        say(remark)
    if reconciliation.cells:
        say("")
        show_table(_CELLS, _cell_rows(reconciliation))
    if reconciliation.findings:
        say("")
        ordered = sorted(reconciliation.findings, key=lambda finding: finding.cause.explains)
        show_table(_FINDINGS, map(_finding_row, ordered[:SHOWN_ROWS]))
        if len(ordered) > SHOWN_ROWS:
            complain(f"{len(ordered) - SHOWN_ROWS} more rows; --json shows all")


def _cell_rows(reconciliation: Reconciliation) -> Iterator[tuple[str, ...]]:
    for cell in reconciliation.cells:
        why = ", ".join(f"{cause.words} {count.tokens:+,}" for cause, count in cell.causes.items())
        yield (
            cell.model,
            minute(cell.since),
            _tokens(cell.record),
            f"{cell.estimated.tokens:,}" if cell.estimated.tokens else "",
            _tokens(cell.billed),
            f"{cell.difference.tokens:+,}" if cell.difference.magnitude else "0",
            why,
            f"{cell.unexplained:,}" if cell.unexplained else "",
        )


def _finding_row(finding: BillFinding) -> tuple[str, ...]:
    from app.finance.reconciliation.reconciliation_types import Certainty

    call = finding.call
    bound = "" if finding.certainty is Certainty.CERTAIN else " (at most)"
    return (
        f"{finding.cause.words}{bound}",
        call.task_id if call else "",
        call.stage if call else "",
        call.call_id if call else "",
        finding.place,
        _tokens(finding.record),
        _tokens(finding.billed),
        f"{finding.difference.tokens:+,}",
    )


def _tokens(count: Count) -> str:
    return f"{count.input_tokens:,} + {count.output_tokens:,}" if count.tokens else "0"
