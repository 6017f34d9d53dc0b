"""`refund-agent doctor`: checks that everything is installed and reachable, and says how to repair what is not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli import retries
from app.cli.client import MODEL_URL, SYSTEMS_URL, AsJson, SystemsUrl, Token, Url
from app.cli.screen import Column, ColumnKind, Wide, show_json, show_table
from app.domain.models import Frozen

if TYPE_CHECKING:
    from app.cli.checks import DoctorFinding

commands = typer.Typer(invoke_without_command=True)


class DoctorFindingView(Frozen, from_attributes=True):
    """The JSON form of one finding. `remedy` is empty if nothing is wrong."""

    name: str
    ok: bool
    found: str
    remedy: str


@commands.callback()
def doctor(
    context: typer.Context,
    folder: retries.Folder = Path(),
    sandbox: Annotated[bool, typer.Option(help="Whether the sandbox should be up.")] = True,
    model_url: Annotated[str, typer.Option(help="The sandbox's model server.")] = MODEL_URL,
    systems_url: SystemsUrl = SYSTEMS_URL,
    url: Url = None,
    token: Token = None,
    wide: Wide = False,
    as_json: AsJson = False,
) -> None:
    """Checks the machine, the configuration files and the running parts; changes nothing. `make doctor` checks the
    machine only, and works before anything is set up."""
    if context.invoked_subcommand is not None:
        return
    findings = list(_findings(folder, url, token, [model_url, systems_url] if sandbox else []))
    if as_json:
        show_json([DoctorFindingView.model_validate(finding) for finding in findings])
    else:
        rows = [(f.name, "ok" if f.ok else "wrong", f.found, f.remedy) for f in findings]
        show_table(("what", "is", Column("found", ColumnKind.PROSE), Column("remedy", ColumnKind.PROSE)), rows)
    if not all(finding.ok for finding in findings):
        raise typer.Exit(1)


def _findings(folder: Path, url: str | None, token: str | None, sandbox: list[str]) -> Iterator[DoctorFinding]:
    from app.cli.checks import (
        components,
        metrics,
        policy_file,
        prerequisites,
        probe,
        resource_files,
        runtime,
        sdk,
        secrets_file,
        sidecar_retries,
        token_works,
    )
    from app.config.settings import load
    from app.dapr.sdk_version import sdk_version

    settings = load()
    if (folder / "dapr.yaml").exists() or folder != Path():  # a pod has no checkout
        yield from prerequisites()
        yield from resource_files(folder)
        yield sidecar_retries(folder)
        yield secrets_file(settings)
    yield policy_file(folder / settings.policy_file)
    yield probe("daprd", f"{settings.dapr_http}/v1.0/healthz")
    yield from runtime(settings)
    yield from sdk(sdk_version())
    yield metrics(settings)
    yield from components(settings, folder)
    yield probe("agent", f"{(url or settings.agent_url).rstrip('/')}/healthz")
    yield token_works(url, token)
    for name, address in zip(("sandbox: model", "sandbox: systems"), sandbox, strict=False):
        yield probe(name, f"{address.rstrip('/')}/healthz")


commands.command("retries")(retries.retries)
