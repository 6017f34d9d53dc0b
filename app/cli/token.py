"""`refund-agent token ...`: bearer tokens for people and programs, in this machine's secret file."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import secrets as random
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from app.cli.client import AsJson
from app.cli.screen import complain, say, show_json, show_table
from app.config.secret_files import UnreadableSecrets, read_secrets
from app.domain.errors import ConfigurationError
from app.domain.models import Frozen
from app.tasks.access import ALL_TENANTS, LOCAL_TOKEN_NAME, TOKENS_SECRET, Role, Token, digest_of, parse_tokens

# The tokens in the local secret store's file: read whole, changed under a lock, written whole or not at all.

Change = Callable[[tuple[Token, ...]], tuple[Token, ...]]


def tokens_in(path: Path) -> tuple[Token, ...]:
    """The tokens that the file gives. Raises ConfigurationError for a file that is not ours to read or change."""
    return _tokens(secrets_in(path), path)


def change_tokens(path: Path, change: Change) -> None:
    """Replaces the tokens; all other secrets stay as they are. Raises ConfigurationError."""
    with open(path.with_name(f".{path.name}.lock"), "a", opener=_private) as lock:
        fcntl.flock(lock.fileno(), fcntl.LOCK_EX)
        content = secrets_in(path)
        tokens = change(_tokens(content, path))
        content.pop(TOKENS_SECRET, None)
        if tokens:
            # As text: Dapr's file store would take an object apart and give each leaf a name of its own.
            records = [token.model_dump(mode="json") for token in tokens]
            content[TOKENS_SECRET] = json.dumps({"tokens": records})
        _write(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def _tokens(content: dict[str, Any], path: Path) -> tuple[Token, ...]:
    text = content.get(TOKENS_SECRET)
    if text is None:
        return ()
    if not isinstance(text, str):
        raise ConfigurationError(f"{path}: {TOKENS_SECRET} is no text; write the JSON of the tokens in quotes")
    return parse_tokens(text, f"{path}: {TOKENS_SECRET}")


def secrets_in(path: Path) -> dict[str, Any]:
    """All secrets of the file by name; none without a file. Raises ConfigurationError for one that is no such file."""
    try:
        return read_secrets(path)
    except UnreadableSecrets as error:
        raise ConfigurationError(str(error)) from None
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read: {error}; correct the file") from None


def _write(path: Path, text: str) -> None:
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    with open(draft, "x", encoding="utf-8", opener=_private) as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


SECRET_BYTES = 32
NOTICED = "the agent knows it after `make reload`, or when it is started again"
Name = Annotated[str, typer.Argument(metavar="NAME", help="Who it is for; stands in decisions.")]


class TokenView(Frozen):
    """A token for programs, without its secret. `tenants`: `*` alone means all of them."""

    name: str
    roles: tuple[Role, ...]
    tenants: tuple[str, ...]


class NewTokenView(TokenView):
    """The answer of `token create`: the only one with the secret."""

    token: str


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
    change_tokens(_file(), lambda tokens: _with(tokens, record))
    if as_json:
        show_json(NewTokenView(**dict(_view(record)), token=secret))
        return
    say(secret)
    complain(f"token {name} is made, and not shown again; {NOTICED}")


@commands.command("list")
def show_tokens(as_json: AsJson = False) -> None:
    """Lists the tokens of this machine's secret file; the local one, which is the CLI's own, is not in it."""
    views = [_view(record) for record in tokens_in(_file())]
    if as_json:
        show_json(views)
        return
    rows = [(view.name, ", ".join(view.roles), ", ".join(view.tenants)) for view in views]
    show_table(("name", "roles", "tenants"), rows)


@commands.command("revoke")
def revoke(name: Name) -> None:
    """Takes a token away for good."""
    change_tokens(_file(), lambda tokens: _without(tokens, name))
    say(f"token {name} is revoked; {NOTICED.replace('knows it', 'refuses it')}")


def _record(name: str, secret: str, roles: list[Role], tenants: list[str] | None) -> Token:
    given = {"name": name, "sha256": digest_of(secret), "roles": roles, "tenants": tenants or ALL_TENANTS}
    try:
        return Token.model_validate(given)
    except ValueError:
        raise typer.BadParameter(
            f"{name!r} or a tenant of {tenants} is no name: letters, digits, . _ - (a token's name also @ and spaces)"
        ) from None


def _with(tokens: tuple[Token, ...], record: Token) -> tuple[Token, ...]:
    if record.name == LOCAL_TOKEN_NAME or record.name in {token.name for token in tokens}:
        raise ConfigurationError(
            f"there is a token {record.name} already; revoke it first (`refund-agent token revoke {record.name}`), or "
            "choose another name"
        )
    return (*tokens, record)


def _without(tokens: tuple[Token, ...], name: str) -> tuple[Token, ...]:
    left = tuple(token for token in tokens if token.name != name)
    if left == tokens:
        names = ", ".join(sorted(token.name for token in tokens)) or "none"
        raise ConfigurationError(f"there is no token {name} in {_file()}; there are: {names}")
    return left


def _view(record: Token) -> TokenView:
    tenants = [ALL_TENANTS] if record.tenants == ALL_TENANTS else sorted(record.tenants)
    return TokenView(name=record.name, roles=tuple(sorted(record.roles)), tenants=tuple(tenants))


def _file() -> Path:
    from app.config.settings import load

    folder = load().state_dir
    if not folder.is_dir():
        raise ConfigurationError(
            f"no agent's state: there is no folder {folder.absolute()}; go to the project's folder, where `make up` "
            "makes it, or set REFUND_AGENT_STATE_DIR"
        )
    return folder / "secrets.json"
