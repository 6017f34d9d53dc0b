"""`refund-agent demo`: works the bundled samples and holds the result against what must come of them."""

from __future__ import annotations

from typing import Annotated

import typer

from app.cli.connection import AsJson, Token, Url, connect
from app.cli.faults import AgentAway, NotUnderstood
from app.cli.intake import Kind, Pace
from app.cli.judging import Booked, RefundBook, Verdict, judge
from app.cli.layout import figures
from app.cli.screen import Wide, complain, say, show_json, show_table
from app.cli.submit import follow_with_meter, send_with_meter
from app.cli.ticket_files import TicketLine
from app.domain.errors import RefundAgentError
from app.domain.models import Outcome, TaskStatus

SYSTEMS_URL = "http://127.0.0.1:8092"
SystemsUrl = Annotated[str, typer.Option("--systems-url", help="The sandbox's internal systems.")]


class SampleRefused(RefundAgentError):
    """The agent did not take a bundled sample."""


def demo(
    timeout: Annotated[float, typer.Option(min=0, help="Seconds to wait for the tasks at most.")] = 600,
    concurrency: Annotated[int, typer.Option(min=1, max=64, help="Requests at once.")] = 8,
    systems_url: SystemsUrl = SYSTEMS_URL,
    url: Url = None,
    token: Token = None,
    wide: Wide = False,
    as_json: AsJson = False,
) -> None:
    """Works the sample tickets; exit code 1 when a task or a booked refund is not as it must be, or when fewer
    than 95 of 100 clear tickets were understood."""
    from sandbox.data import load_expected, load_tickets

    lines = [TicketLine(number, ticket) for number, ticket in enumerate(load_tickets(), start=1)]
    with connect(url, token) as client:
        receipts = send_with_meter(lines, client.submit, Pace(None, concurrency), len(lines))
        refused = [receipt for receipt in receipts if receipt.kind in (Kind.CONFLICT, Kind.REFUSED)]
        if refused:
            raise SampleRefused(
                f"{len(refused)} of {len(lines)} samples were not taken, first {refused[0].task_id}; "
                "use a token for every tenant, and a state folder without other tickets of these ids"
            )
        ids = [receipt.task_id for receipt in receipts]
        rested, running = follow_with_meter(ids, client.get, timeout)
        views = {view.task_id: view for view in [*rested, *map(client.get, running)]}
    verdict = judge(load_expected(), views, _refund_book(systems_url))
    _show_as_json(verdict) if as_json else _show(verdict)
    if not verdict.good:
        raise typer.Exit(1)


def _refund_book(systems_url: str) -> tuple[Booked, ...]:
    import httpx
    from pydantic import ValidationError

    from app.cli import http

    address = f"{systems_url.rstrip('/')}/books/refunds"
    try:
        answer = http.get(address, 30)
        return RefundBook.model_validate_json(answer.raise_for_status().content).rows
    except httpx.RequestError as error:
        raise AgentAway(
            f"the refund book does not answer at {address} ({type(error).__name__}); start the sandbox with "
            "`make up`, or name another with --systems-url"
        ) from None
    except (httpx.HTTPStatusError, ValidationError):
        raise NotUnderstood(f"{address} is no refund book of the sandbox; check --systems-url") from None


def _show(verdict: Verdict) -> None:
    tenants = sorted({tenant for _, tenant in verdict.tally})
    order = [item.value for item in (*Outcome, *TaskStatus)]
    rows = []
    for name in (name for name in order if any(label == name for label, _ in verdict.tally)):
        counts = [verdict.tally.get((name, tenant), 0) for tenant in tenants]
        rows.append((name, *(str(count or "") for count in counts), str(sum(counts))))
    sums = [sum(n for (_, of), n in verdict.tally.items() if of == tenant) for tenant in tenants]
    rows.append(("all", *map(str, sums), str(sum(sums))))
    show_table(["outcome", *figures(*tenants, "all")], rows)
    say(f"classification  {verdict.clear_right} of {verdict.clear} clear tickets right{_share(verdict)}")
    say(f"refunds         {_refunds(verdict)}")
    waiting = sum(count for (name, _), count in verdict.tally.items() if name == TaskStatus.WAITING.value)
    if waiting:
        say(f"for a person    {waiting} wait: `make up`, then `.venv/bin/refund-agent task list --status waiting`")
    for sentence in (*verdict.misclassified, *verdict.differences):
        complain(sentence)


def _share(verdict: Verdict) -> str:
    return f" ({100 * verdict.clear_right / verdict.clear:.1f} %)" if verdict.clear else ""


def _refunds(verdict: Verdict) -> str:
    wrong = sum("the books must hold" in difference for difference in verdict.differences)
    if not wrong:
        return f"{verdict.refunds_booked} booked, each exactly as it must be"
    return f"{verdict.refunds_booked} booked, {verdict.refunds_expected} due; {wrong} tasks differ"


def _show_as_json(verdict: Verdict) -> None:
    tally: dict[str, dict[str, int]] = {}
    for (name, tenant), count in sorted(verdict.tally.items()):
        tally.setdefault(name, {})[tenant] = count
    show_json(
        {
            "outcomes": tally,
            "clear_tickets": verdict.clear,
            "clear_tickets_right": verdict.clear_right,
            "misclassified": list(verdict.misclassified),
            "refunds_due": verdict.refunds_expected,
            "refunds_booked": verdict.refunds_booked,
            "differences": list(verdict.differences),
        }
    )
