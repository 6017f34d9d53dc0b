"""`refund-agent cost ...`: what the work cost, by whom and by what."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from app.cli import failure_cost, reconcile, report, repriced
from app.cli.connection import AsJson
from app.cli.figures import Exact
from app.cli.period import Since, Tenant, Until, selection
from app.cli.report import Sort
from app.cli.screen import AsCsv, Wide, one_form, show_json
from app.finance.rollup import Dimension

DEFAULT_BY = "tenant,stage"
By = Annotated[
    str | None,
    typer.Option(
        metavar="DIMENSION,...",
        help=f"Any of: {', '.join(Dimension)}; empty for the total alone.  [default: {DEFAULT_BY}; with --prices: "
        f"{','.join(repriced.BY)}]",
        show_default=False,
    ),
]
OtherPrices = Annotated[
    Path | None,
    typer.Option("--prices", metavar="FILE", help="Also what it would cost by this price file.", show_default=False),
]

commands = typer.Typer(help="What the work cost, and why.", no_args_is_help=True)


@commands.command("report")
def report_(
    by: By = None,
    since: Since = None,
    until: Until = None,
    tenant: Tenant = None,
    sort: Annotated[
        Sort | None, typer.Option(help="What comes first.  [default: name; with --top: total]", show_default=False)
    ] = None,
    top: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Only the first N groups.", show_default=False)
    ] = None,
    prices: OtherPrices = None,
    exact: Exact = False,
    wide: Wide = False,
    as_csv: AsCsv = False,
    as_json: AsJson = False,
) -> None:
    """Sums what was charged, by any dimensions; with --prices, what the same usage costs by another book. The five
    dearest tickets, and why: --by task --top 5."""
    one_form(as_csv=as_csv, as_json=as_json)
    chosen = selection(since, until, tenant)
    if prices:
        if sort or top:
            raise typer.BadParameter("--sort and --top do not go with --prices")
        names = repriced.BY if by is None else dimensions(by)
        changed = repriced.repriced(chosen, names, prices)
        if as_json:
            show_json(changed.model_dump(mode="json"))
        else:
            repriced.write_csv(changed, names) if as_csv else repriced.show(changed, names, prices, exact=exact)
        return
    first = sort or (Sort.TOTAL if top else Sort.NAME)
    view = report.counted(chosen, dimensions(DEFAULT_BY if by is None else by), first, top)
    if as_json:
        show_json(view.model_dump(mode="json"))
    else:
        report.write_csv(view) if as_csv else report.show(view, exact=exact)


def dimensions(text: str) -> tuple[Dimension, ...]:
    """The dimensions of `a,b`, each once. Raises BadParameter that lists those there are."""
    names = dict.fromkeys(name.strip() for name in text.split(",") if name.strip())
    for name in names:
        if name not in frozenset(Dimension):
            raise typer.BadParameter(f"--by: there is no dimension {name!r}; there are {', '.join(Dimension)}")
    return tuple(Dimension(name) for name in names)


commands.command("reconcile")(reconcile.reconcile)
commands.command("tax")(failure_cost.tax)
