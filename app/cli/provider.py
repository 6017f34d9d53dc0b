"""`refund-agent provider ...`: the model providers there are templates for, and the switch from one to another."""

from __future__ import annotations

import asyncio
import difflib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from app.cli.client import AsJson
from app.cli.opening import TIMES, instant, open_book
from app.cli.screen import Column, ColumnKind, Wide, figures, name, printable, say, show_facts, show_json, show_table
from app.domain.errors import ConfigurationError, Unreachable
from app.domain.money import plain

if TYPE_CHECKING:
    from app.providers.catalogue import ProviderTemplate
    from app.providers.provider_check import Candidate
    from app.providers.provider_schemas import CatalogueView, ChecksView, ProbeView, ProviderCheckView, ProviderView
    from app.providers.switch import Switch

Provider = TypeVar("Provider", "ProviderTemplate", "ProviderView")

commands = typer.Typer(help="Which model providers there are, and which one is in use.", no_args_is_help=True)

Folder = Annotated[Path, typer.Option(help="The project's folder.")]
At = Annotated[
    datetime | None,
    typer.Option(parser=instant, metavar="TIME", help=f"Prices as of then, in UTC: {TIMES}.  [default: now]"),
]
Name = Annotated[str, typer.Argument(metavar="NAME", help="A provider of `provider list`.")]
Model = Annotated[str, typer.Option(help="Another model than the template's.", show_default=False)]
Endpoint = Annotated[str, typer.Option(help="Another address than the template's.", show_default=False)]
# How often the sidecar is asked whether it has loaded the candidate, which takes it a few seconds.
_LOOKS, _LOOK_SECONDS = 60, 0.5
_COLUMNS: tuple[Column | str, ...] = (
    *name("provider", "in use"),
    Column("component", spare=3),
    "model",
    *figures("in", "out"),
    Column("currency", common=True),
    Column("context", spare=2),
    "retires",
    Column("Dapr supports", spare=1),
    "secrets",
)


@commands.command("list")
def show_list(folder: Folder = Path(), at: At = None, wide: Wide = False, as_json: AsJson = False) -> None:
    """Lists the providers with their model, its price per million tokens, its limits, and what Dapr supports."""
    view = _catalogue(folder, at or datetime.now(UTC))
    if as_json:
        show_json(view)
        return
    show_table(_COLUMNS, [_row(provider) for provider in view.providers])
    if view.in_use is None:
        in_use = f"{view.component_type} {view.model}" if view.component_type else "a file that cannot be read"
        say(f"note: components/llm.yaml is none of these: {in_use}")
    say("`provider show NAME` says more, `provider use NAME` switches; docs/providers.md has the limits of each")


@commands.command("show")
def show(provider: Name, folder: Folder = Path(), at: At = None, as_json: AsJson = False) -> None:
    """Shows one provider: its model with price and limits, what Dapr supports, and what it needs."""
    view = _catalogue(folder, at or datetime.now(UTC))
    chosen = _choose(provider, view.providers)
    if as_json:
        show_json(chosen)
    else:
        show_facts(_facts(chosen))


@commands.command("use")
def use(
    provider: Name,
    model: Model = "",
    endpoint: Endpoint = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the change and write nothing.")] = False,
    folder: Folder = Path(),
    as_json: AsJson = False,
) -> None:
    """Switches to a provider: writes components/llm.yaml, which the sidecar loads in seconds. Running tasks go on."""
    from app.providers.catalogue import LIVE
    from app.providers.provider_schemas import SwitchView
    from app.providers.switch import write_switch

    (switch,) = _plan(folder, [provider], model, endpoint)
    template = switch.template
    backup = None if dry_run else write_switch(folder, switch)
    view = SwitchView(
        provider=template.name,
        component_type=template.component_type,
        model=switch.model,
        endpoint=switch.endpoint,
        written=bool(switch.diff) and not dry_run,
        file=str(folder / LIVE),
        backup=str(backup) if backup else None,
        diff=switch.diff,
        notes=tuple(_notes(folder, switch)),
    )
    if as_json:
        show_json(view)
        return
    for line in view.diff.splitlines():
        typer.echo(printable(line))
    kept = f"; what it held is in {view.backup}" if view.backup else ""
    done = f"{view.file} has {template.name} now{kept}. The sidecar loads it within seconds (`refund-agent doctor`)."
    nothing = "nothing was written (--dry-run)" if view.diff else f"{view.file} has that already; nothing was written"
    say(done if view.written else nothing)
    for note in view.notes:
        say(f"note: {note}")


@commands.command("check")
def check(
    providers: Annotated[list[str], typer.Argument(metavar="NAME...", help="Providers of `provider list`.")],
    model: Model = "",
    endpoint: Endpoint = "",
    folder: Folder = Path(),
    as_json: AsJson = False,
) -> None:
    """Asks providers about ten questions through the running sidecar, beside the component in use: do they answer,
    report usage, take tools, honour a schema, name their errors? Exit code 1 if one fails."""
    from app.providers.provider_schemas import ChecksView

    checks = tuple(asyncio.run(_check(folder, switch)) for switch in _plan(folder, providers, model, endpoint))
    view = ChecksView(ok=not any(_failures(checked) for checked in checks), checks=checks)
    if as_json:
        show_json(view)
    else:
        _show_checks(view)
    if not view.ok:
        raise typer.Exit(1)


def _plan(folder: Path, providers: Sequence[str], model: str, endpoint: str) -> list[Switch]:
    """The switch to each provider. Raises BadParameter or ConfigurationError for the first that cannot be used so."""
    from app.providers.catalogue import read_templates
    from app.providers.switch import Unsuitable, plan_switch

    templates, switches = read_templates(folder), []
    for provider in providers:
        template = _choose(provider, templates)
        _refuse_without_secrets(folder, template)
        try:
            switches.append(plan_switch(folder, template, model, endpoint))
        except Unsuitable as error:
            raise typer.BadParameter(str(error)) from None
    return switches


async def _check(folder: Path, switch: Switch) -> ProviderCheckView:
    from app.cli.checks import APP_ID
    from app.config.settings import load
    from app.dapr import sdk_patches
    from app.finance.retry_bounds.sidecar_files import policies
    from app.llm.conversation import DaprConversation
    from app.pricing import litellm_prices
    from app.providers.provider_check import ProviderCheck
    from app.providers.provider_schemas import ProbeView, ProviderCheckView
    from app.providers.switch import CANDIDATE, candidate_file

    settings, template = load(), switch.template
    sdk_patches.skip_health_checks()
    guard = policies([folder / "components", folder / "resiliency"], APP_ID).of_model(CANDIDATE)
    seconds = guard.timeout.total_seconds() if guard.timeout and guard.breaker else None
    candidate = DaprConversation(CANDIDATE, settings.daprd)
    probes = ProviderCheck(candidate, switch.model, seconds)
    await _wait_for(candidate, "")
    try:
        with candidate_file(folder, switch):
            await _wait_for(candidate, template.component_type)
            results = await probes.run(open_book(folder / settings.prices_file), litellm_prices.load())
    finally:
        await _wait_for(candidate, "")
    return ProviderCheckView(
        provider=template.name,
        component_type=template.component_type,
        model=switch.model,
        results=tuple(ProbeView.model_validate(result) for result in results),
        requests=probes.requests,
        input_tokens=sum(usage.input_tokens or 0 for usage in probes.used),
        output_tokens=sum(usage.output_tokens or 0 for usage in probes.used),
    )


async def _wait_for(candidate: Candidate, component_type: str) -> None:
    """Waits until the sidecar has loaded the candidate as this type, or has unloaded it if the type is empty, but no
    longer than a sidecar takes that cannot load it. Raises Unreachable if no sidecar answers."""
    for _ in range(_LOOKS):
        kind = await candidate.provider(_LOOK_SECONDS)
        if kind is None:
            raise Unreachable("the sidecar does not answer; start everything with `make up`")
        if kind == component_type:
            return
        await asyncio.sleep(_LOOK_SECONDS)


def _failures(checked: ProviderCheckView) -> list[ProbeView]:
    from app.providers.provider_check import ProbeVerdict

    return [result for result in checked.results if result.verdict is ProbeVerdict.FAIL]


def _show_checks(view: ChecksView) -> None:
    """One provider with its evidence; or a column for each, and the evidence of what failed."""
    if len(view.checks) == 1:
        results = view.checks[0].results
        evidence = [(result.question, result.verdict.value, result.evidence) for result in results]
        show_table(("question", "verdict", Column("evidence", ColumnKind.PROSE)), evidence)
    else:
        verdicts = [{result.question: result.verdict.short for result in checked.results} for checked in view.checks]
        questions = dict.fromkeys(question for column in verdicts for question in column)
        rows = [(question, *(column.get(question, "") for column in verdicts)) for question in questions]
        show_table(("question", *(checked.provider for checked in view.checks)), rows)
        for checked in view.checks:
            for failure in _failures(checked):
                say(f"{checked.provider}: {failure.question}: {failure.evidence}")
    requests = sum(checked.requests for checked in view.checks)
    tokens = sum(checked.input_tokens + checked.output_tokens for checked in view.checks)
    say(f"{requests} requests, {tokens:,} tokens reported; they are not in the ledger")


def _catalogue(folder: Path, at: datetime) -> CatalogueView:
    from app.config.settings import load
    from app.pricing import litellm_prices
    from app.providers.catalogue import LIVE, find_in_use, read_component, read_templates
    from app.providers.provider_schemas import CatalogueView, provider_view
    from app.providers.switch import missing_secrets

    templates = read_templates(folder)
    try:
        live = read_component(folder / LIVE)
    except ConfigurationError:
        live = None
    used = find_in_use(live, templates) if live else None
    book, other = open_book(folder / load().prices_file), litellm_prices.load()
    views = []
    for template in templates:
        shown = replace(template, model=live.model, endpoint=live.endpoint) if live and template is used else template
        missing, store = missing_secrets(folder, template)
        known = missing if store or not template.secrets else None
        views.append(provider_view(shown, book, other, at, in_use=template is used, missing_secrets=known))
    return CatalogueView(
        in_use=used.name if used else None,
        component_type=live.component_type if live else None,
        model=live.model if live else None,
        providers=tuple(views),
    )


def _choose(wanted: str, providers: Sequence[Provider]) -> Provider:
    """The provider of that name. Raises BadParameter with the nearest names."""
    by_name = {provider.name: provider for provider in providers}
    if wanted in by_name:
        return by_name[wanted]
    near = difflib.get_close_matches(wanted.lower(), by_name, n=3, cutoff=0.4) or sorted(by_name)
    raise typer.BadParameter(f"there is no provider {wanted!r}; near it: {', '.join(near)}")


def _refuse_without_secrets(folder: Path, template: ProviderTemplate) -> None:
    from app.providers.switch import missing_secrets

    missing, store = missing_secrets(folder, template)
    if missing:
        entries = ", ".join(f'"{secret}": "..."' for secret in missing)
        raise ConfigurationError(
            f"{template.name}: secret {', '.join(missing)} is not in {store}; add {entries} to it, run `make reload` "
            "(the sidecar reads that file at start only), then run this again"
        )


def _notes(folder: Path, switch: Switch) -> Iterator[str]:
    """What somebody who switches there should know."""
    from app.config.settings import load
    from app.pricing.schedule import NoPrice

    template, support = switch.template, switch.template.support
    if support and not support.tools:
        until = f" until Dapr {support.tools_from}" if support.tools_from else ""
        yield f"{template.component_type} cannot pass tools on{until}: they are offered in words (docs/cost-model.md)"
    if support and not support.usage:
        yield f"Dapr passes on no usage of {template.component_type}: tokens are estimated (docs/cost-model.md)"
    price = open_book(folder / load().prices_file).find(template.component_type, switch.model, datetime.now(UTC))
    if isinstance(price, NoPrice):
        yield f"its calls have no price: {price.reason}; {price.remedy}"


def _row(provider: ProviderView) -> tuple[str, ...]:
    price = provider.price
    return (
        provider.name,
        "yes" if provider.in_use else "",
        provider.component_type,
        provider.model,
        plain(price.input) if price else "none",
        plain(price.output) if price else "none",
        price.currency if price else "",
        "" if provider.context_tokens is None else f"{provider.context_tokens:,}",
        f"{provider.retires or ''}",
        ", ".join(_supported(provider)) or "nothing",
        _secrets(provider),
    )


def _supported(provider: ProviderView) -> Iterable[str]:
    support = provider.support
    if support is not None:
        parts = {
            "usage": support.usage,
            "tools": support.tools,
            "schema": support.structured_output,
            "cached": support.cached_tokens,
        }
        yield from (part for part, supported in parts.items() if supported)


def _secrets(provider: ProviderView) -> str:
    if not provider.secrets:
        return ""
    if provider.missing_secrets is None:
        return "unknown"
    return "missing" if provider.missing_secrets else "there"


def _facts(provider: ProviderView) -> Iterator[tuple[str, str]]:
    yield "provider", f"{provider.name}{' (in use)' if provider.in_use else ''}"
    yield "what", provider.description
    yield "component", provider.component_type
    yield "model", provider.model
    yield "endpoint", provider.endpoint
    if price := provider.price:
        rates = (("in", price.input), ("cached in", price.cached_input), ("cache write", price.cache_write))
        shown = [f"{title} {plain(rate)}" for title, rate in (*rates, ("out", price.output)) if rate is not None]
        yield "price", f"{', '.join(shown)} {price.currency} per million tokens ({price.price_id})"
    else:
        yield "price", f"none: {provider.price_problem}"
    if provider.context_tokens is not None:
        yield "context", f"{provider.context_tokens:,} tokens ({provider.context_source})"
    if provider.retires is not None:
        yield "retires", f"{provider.retires} ({provider.retires_source})"
    if provider.support is not None:
        later = f"; tools from Dapr {provider.support.tools_from}" if provider.support.tools_from else ""
        yield "Dapr supports", f"{', '.join(_supported(provider)) or 'nothing'}{later}"
    yield "secrets", ", ".join(f"{secret} ({_state(provider, secret)})" for secret in provider.secrets)
    yield "template", provider.file


def _state(provider: ProviderView, secret: str) -> str:
    if provider.missing_secrets is None:
        return "unknown"
    return "missing" if secret in provider.missing_secrets else "there"
