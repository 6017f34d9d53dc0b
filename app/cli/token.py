"""`refund-agent token ...`: bearer tokens for people and programs, in this machine's secret file."""

from __future__ import annotations

import secrets as random
from pathlib import Path
from typing import Annotated

import typer

from app.cli.connection import AsJson
from app.cli.screen import complain, say, show_json, show_table
from app.cli.secrets_file import change_tokens, tokens_in
from app.domain.errors import ConfigurationError
from app.tasks.access import ALL_TENANTS, LOCAL_TOKEN_NAME, Role, Token, digest_of

SECRET_BYTES = 32
NOTICED = "the agent knows it after `make reload`, or when it is started again"
Name = Annotated[str, typer.Argument(metavar="NAME", help="Who it is for; stands in decisions.")]

commands = typer.Typer(help="Gives people and programs tokens of their own.", no_args_is_help=True)


@commands.command("create")
def create(
    name: Name,
    role: Annotated[list[Role], typer.Option(help="What it may do; several times for several roles.")],
    tenant: Annotated[list[str] | None, typer.Option(help="Whose tasks; several times for several tenants.")] = None,
    all_tenants: Annotated[bool, typer.Option("--all-tenants", help="Everybody's tasks.")] = False,
    as_json: AsJson = False,
) -> None:
    """Makes a token and shows it, this once: only its digest is kept."""
    if bool(tenant) == all_tenants:
        raise typer.BadParameter("give --tenant, once or more, or --all-tenants")
    secret = random.token_urlsafe(SECRET_BYTES)
    record = _record(name, secret, role, tenant)
    change_tokens(_file(), lambda known: _with(known, record))
    if as_json:
        show_json(_shown(record) | {"token": secret})
        return
    say(secret)
    complain(f"token {name} is made, and not shown again; {NOTICED}")


@commands.command("list")
def show_tokens(as_json: AsJson = False) -> None:
    """Lists the tokens of this machine's secret file; the local one, which is the CLI's own, is not in it."""
    known = [_shown(record) for record in tokens_in(_file())]
    if as_json:
        show_json(known)
        return
    rows = [(str(each["name"]), ", ".join(each["roles"]), ", ".join(each["tenants"])) for each in known]
    show_table(("name", "roles", "tenants"), rows)


@commands.command("revoke")
def revoke(name: Name) -> None:
    """Takes a token away for good."""
    change_tokens(_file(), lambda known: _without(known, name))
    say(f"token {name} is revoked; {NOTICED.replace('knows it', 'refuses it')}")


def _record(name: str, secret: str, roles: list[Role], tenants: list[str] | None) -> Token:
    given = {"name": name, "sha256": digest_of(secret), "roles": roles, "tenants": tenants or ALL_TENANTS}
    try:
        return Token.model_validate(given)
    except ValueError:
        raise typer.BadParameter(
            f"{name!r} or a tenant of {tenants} is no name: letters, digits, . _ - (a token's name also @ and spaces)"
        ) from None


def _with(known: tuple[Token, ...], record: Token) -> tuple[Token, ...]:
    if record.name == LOCAL_TOKEN_NAME or record.name in {each.name for each in known}:
        raise ConfigurationError(
            f"there is a token {record.name} already; revoke it first (`refund-agent token revoke {record.name}`), or "
            "choose another name"
        )
    return (*known, record)


def _without(known: tuple[Token, ...], name: str) -> tuple[Token, ...]:
    left = tuple(each for each in known if each.name != name)
    if left == known:
        names = ", ".join(sorted(each.name for each in known)) or "none"
        raise ConfigurationError(f"there is no token {name} in {_file()}; there are: {names}")
    return left


def _shown(record: Token) -> dict[str, list[str] | str]:
    tenants = [ALL_TENANTS] if record.tenants == ALL_TENANTS else sorted(record.tenants)
    return {"name": record.name, "roles": sorted(role.value for role in record.roles), "tenants": list(tenants)}


def _file() -> Path:
    from app.config.settings import load

    folder = load().state_dir
    if not folder.is_dir():
        raise ConfigurationError(
            f"no agent's state: there is no folder {folder.absolute()}; go to the project's folder, where `make up` "
            "makes it, or set REFUND_AGENT_STATE_DIR"
        )
    return folder / "secrets.json"
