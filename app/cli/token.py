"""`refund-agent token ...`: manages the bearer tokens of people and programs in this machine's secrets file."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
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

# The tokens in the file of the local secret store. Changes hold a lock and replace the file atomically.

Change = Callable[[tuple[Token, ...]], tuple[Token, ...]]


def tokens_in(path: Path) -> tuple[Token, ...]:
    """The tokens of the secrets file; none without a file. Raises ConfigurationError if it cannot be read."""
    return _tokens(secrets_in(path), path)


def change_tokens(path: Path, change: Change) -> None:
    """Replaces the tokens of the secrets file by `change` of them; other secrets stay. Raises ConfigurationError."""
    with open(path.with_name(f".{path.name}.lock"), "a", opener=_private) as lock:
        fcntl.flock(lock.fileno(), fcntl.LOCK_EX)
        content = secrets_in(path)
        tokens = change(_tokens(content, path))
        content.pop(TOKENS_SECRET, None)
        if tokens:
            # As text: Dapr's file store would split an object into one secret for each leaf.
            records = [token.model_dump(mode="json") for token in tokens]
            content[TOKENS_SECRET] = json.dumps({"tokens": records})
        _write(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def _tokens(content: dict[str, Any], path: Path) -> tuple[Token, ...]:
    text = content.get(TOKENS_SECRET)
    if text is None:
        return ()
    if not isinstance(text, str):
        raise ConfigurationError(f"{path}: {TOKENS_SECRET} is not a string; write the JSON of the tokens in quotes")
    return parse_tokens(text, f"{path}: {TOKENS_SECRET}")


def secrets_in(path: Path) -> dict[str, Any]:
    """All secrets of the file by name; none without a file. Raises ConfigurationError if it cannot be read."""
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
EFFECTIVE = "after `make reload` or a restart of the agent"
Name = Annotated[str, typer.Argument(metavar="NAME", help="The holder's name, which decisions show.")]


class TokenView(Frozen):
    """The JSON form of a token, without its secret. `tenants` is `*` for all tenants."""

    name: str
    roles: tuple[Role, ...]
    tenants: tuple[str, ...]


class NewTokenView(TokenView):
    """The JSON answer of `token create`, the only one with the secret."""

    token: str


commands = typer.Typer(help="Manages tokens for people and programs.", no_args_is_help=True)


@commands.command("create")
def create(
    name: Name,
    role: Annotated[list[Role], typer.Option(help="What the holder may do; repeatable.")],
    tenant: Annotated[list[str] | None, typer.Option(help="Whose tasks the holder may access; repeatable.")] = None,
    all_tenants: Annotated[bool, typer.Option("--all-tenants", help="The tasks of all tenants.")] = False,
    as_json: AsJson = False,
) -> None:
    """Creates a token and shows it once: only its digest is kept."""
    if bool(tenant) == all_tenants:
        raise typer.BadParameter("give --tenant, once or more, or --all-tenants")
    secret = secrets.token_urlsafe(SECRET_BYTES)
    record = _make_record(name, secret, role, tenant)
    change_tokens(_secrets_path(), lambda tokens: _add(tokens, record))
    if as_json:
        show_json(NewTokenView(**dict(_view(record)), token=secret))
        return
    say(secret)
    complain(f"token {name} is created, and will not be shown again; the agent accepts it {EFFECTIVE}")


@commands.command("list")
def show_tokens(as_json: AsJson = False) -> None:
    """Lists the tokens of this machine's secrets file, which does not contain the command line's local token."""
    views = [_view(record) for record in tokens_in(_secrets_path())]
    if as_json:
        show_json(views)
        return
    rows = [(view.name, ", ".join(view.roles), ", ".join(view.tenants)) for view in views]
    show_table(("name", "roles", "tenants"), rows)


@commands.command("revoke")
def revoke(name: Name) -> None:
    """Revokes a token permanently."""
    change_tokens(_secrets_path(), lambda tokens: _remove(tokens, name))
    say(f"token {name} is revoked; the agent refuses it {EFFECTIVE}")


def _make_record(name: str, secret: str, roles: list[Role], tenants: list[str] | None) -> Token:
    fields = {"name": name, "sha256": digest_of(secret), "roles": roles, "tenants": tenants or ALL_TENANTS}
    try:
        return Token.model_validate(fields)
    except ValueError:
        raise typer.BadParameter(
            f"{name!r} or a tenant of {tenants} is invalid: use letters, digits, . _ - (in a token's name also @ and "
            "spaces)"
        ) from None


def _add(tokens: tuple[Token, ...], record: Token) -> tuple[Token, ...]:
    if record.name == LOCAL_TOKEN_NAME or record.name in {token.name for token in tokens}:
        raise ConfigurationError(
            f"the token {record.name} exists already; revoke it first (`refund-agent token revoke {record.name}`), or "
            "choose another name"
        )
    return (*tokens, record)


def _remove(tokens: tuple[Token, ...], name: str) -> tuple[Token, ...]:
    others = tuple(token for token in tokens if token.name != name)
    if others == tokens:
        names = ", ".join(sorted(token.name for token in tokens)) or "none"
        raise ConfigurationError(f"there is no token {name} in {_secrets_path()}; its tokens: {names}")
    return others


def _view(record: Token) -> TokenView:
    tenants = [ALL_TENANTS] if record.tenants == ALL_TENANTS else sorted(record.tenants)
    return TokenView(name=record.name, roles=tuple(sorted(record.roles)), tenants=tuple(tenants))


def _secrets_path() -> Path:
    from app.config.settings import load

    folder = load().state_dir
    if not folder.is_dir():
        raise ConfigurationError(
            f"the agent's state folder {folder.absolute()} does not exist; run this in the project's folder after "
            "`make up`, or set REFUND_AGENT_STATE_DIR"
        )
    return folder / "secrets.json"
