"""Access control: tokens, their roles and their tenants.

A token's random secret is stored and logged nowhere; only its SHA-256 is stored. The role `admin` includes every role.
A token is bound to certain tenants or to all of them (`"*"`).
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import secrets
import stat
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from app.config.secret_files import write_once
from app.domain.errors import AccessDenied, ConfigurationError, RefundAgentError
from app.domain.models import CallerName, Frozen, TenantId

log = logging.getLogger(__name__)

ALL_TENANTS: Literal["*"] = "*"
LOCAL_TOKEN_NAME = "local"  # noqa: S105 - the name of a token, not a secret
TOKENS_SECRET = "api-tokens"  # noqa: S105 - the name of a secret, not a secret
MIN_SECRET_CHARACTERS = 32


class Role(StrEnum):
    """What a token may do."""

    SUBMIT = "submit"
    READ = "read"
    APPROVE = "approve"  # approve or reject what waits for a person
    ADMIN = "admin"  # pause, resume, terminate, and everything above


class Token(Frozen):
    """A token: its name, which decisions carry, the digest of its secret, its roles and tenants."""

    name: CallerName
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", repr=False)
    roles: Annotated[frozenset[Role], Field(min_length=1)]
    tenants: Literal["*"] | Annotated[frozenset[TenantId], Field(min_length=1)]


class TokenFile(Frozen):
    """The form of a token file: `{"tokens": [{name, sha256, roles, tenants}, ...]}`."""

    tokens: tuple[Token, ...] = Field(min_length=1)


@dataclass(frozen=True)
class Principal:
    """The caller, by its token. `tenants` None means all tenants."""

    name: str
    roles: frozenset[Role]
    tenants: frozenset[str] | None

    def sees(self, tenant: str) -> bool:
        """Whether the caller may know of this tenant's tasks."""
        return self.tenants is None or tenant in self.tenants

    def may(self, role: Role) -> bool:
        """Whether the caller has the role; an admin has every role."""
        return role in self.roles or Role.ADMIN in self.roles

    def require(self, role: Role, tenant: str | None = None) -> None:
        """Raises AccessDenied (403) if the caller lacks the role or, if given, the tenant."""
        if not self.may(role):
            raise AccessDenied(f"token {self.name!r} has no role {role.value!r}; ask an admin for one that has")
        if tenant is not None and not self.sees(tenant):
            raise AccessDenied(f"token {self.name!r} is not bound to tenant {tenant!r}; use that tenant's own token")


class Access:
    """The valid tokens."""

    def __init__(self, tokens: Iterable[Token]) -> None:
        self._tokens = tuple(tokens)

    def replace(self, tokens: Iterable[Token]) -> frozenset[str]:
        """Replaces the valid tokens. Returns the names of tokens that were added, removed or changed."""
        before, self._tokens = set(self._tokens), tuple(tokens)
        return frozenset(token.name for token in before ^ set(self._tokens))

    def authenticate(self, header: str | None) -> Principal:
        """The caller with this `Authorization` header. Raises AccessDenied (401) unless it holds a valid bearer token.
        The digest is compared with all tokens, so the time does not show which one it resembles."""
        scheme, _, secret = (header or "").partition(" ")
        if scheme.lower() != "bearer" or not secret.strip():
            raise AccessDenied("no bearer token; send the header `Authorization: Bearer <token>`", status=401)
        digest = digest_of(secret.strip())
        matches = [token for token in self._tokens if hmac.compare_digest(token.sha256, digest)]
        if not matches:
            raise AccessDenied("the bearer token is not known here; use a token of this agent", status=401)
        return _principal(matches[0])

    def holder(self, digest: str) -> Principal | None:
        """The caller whose token has this digest; None if the token is no longer valid."""
        return next((_principal(token) for token in self._tokens if token.sha256 == digest), None)


def _principal(token: Token) -> Principal:
    tenants = None if token.tenants == ALL_TENANTS else frozenset(token.tenants)
    return Principal(name=token.name, roles=token.roles, tenants=tenants)


def digest_of(secret: str) -> str:
    """The SHA-256 of a token's secret in lower-case hex. It needs no salt, because the secrets are random."""
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()


def parse_tokens(text: str, source: str) -> tuple[Token, ...]:
    """The tokens in a token file's text. Raises ConfigurationError, which names `source`, the record and the key."""
    try:
        raw = json.loads(text, object_pairs_hook=_refuse_repeated_keys)
        tokens = TokenFile.model_validate(raw).tokens
    except ValidationError as error:
        raise ConfigurationError(f"{source}: {_first_error(error)}; correct the token file") from None
    except ValueError as error:
        raise ConfigurationError(f"{source}: {error}; correct the token file") from None
    for key in ("name", "sha256"):
        values = [getattr(token, key) for token in tokens]
        if len(set(values)) < len(values):
            raise ConfigurationError(f"{source}: two tokens have the same {key}; give each token its own")
    return tokens


def _refuse_repeated_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = [key for key, _ in pairs]
    repeated = sorted({key for key in keys if keys.count(key) > 1})
    if repeated:
        raise ValueError(f"a record has the key {repeated[0]!r} twice")
    return dict(pairs)


def _first_error(error: ValidationError) -> str:
    detail = error.errors(include_input=False, include_url=False)[0]
    # pydantic's path also has the branch of a union, such as "literal['*']", which is not a key of the file.
    path = ".".join(str(part) for part in detail["loc"] if isinstance(part, int) or part.isidentifier())
    return f"{path or 'the file'}: {detail['msg']}"


@dataclass(frozen=True)
class LocalToken:
    """This machine's admin token: its record, and the only file that holds its secret."""

    record: Token
    path: Path


def make_local_token(path: Path) -> LocalToken:
    """The local admin token. The first start creates its file (mode 0600), later starts read it.

    Two processes that start at the same time get the same token. Raises ConfigurationError if others may read the file
    or it holds no token, OSError if the folder cannot be written.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not path.exists():
        write_once(path, secrets.token_urlsafe(32))
    record = Token(
        name=LOCAL_TOKEN_NAME,
        sha256=digest_of(read_local_token(path)),
        roles=frozenset({Role.ADMIN}),
        tenants=ALL_TENANTS,
    )
    return LocalToken(record, path)


def read_local_token(path: Path) -> str:
    """The secret in the local token file. Raises ConfigurationError, FileNotFoundError."""
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        raise ConfigurationError(f"{path}: mode {mode:04o} lets other users read the token; run `chmod 600 {path}`")
    secret = path.read_text(encoding="ascii", errors="replace").strip()
    if len(secret) < MIN_SECRET_CHARACTERS or not secret.isascii():
        raise ConfigurationError(f"{path}: holds no token; delete it and restart the agent")
    return secret


LOOK_SECONDS = 5.0


class TokenWatch:
    """Reads the tokens every `LOOK_SECONDS`, so that changes need no restart of the agent. The known tokens stay valid
    while the store does not answer or holds an invalid file."""

    def __init__(self, access: Access, read: Callable[[], Iterable[Token]]) -> None:
        self._access = access
        self._read = read
        self._trouble = ""
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="token-watch", daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Stops the thread after the read in progress."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def look(self) -> None:
        """Reads the tokens once. Logs changes, and each new error once."""
        try:
            names = self._access.replace(self._read())
        except (RefundAgentError, OSError) as error:
            if str(error) != self._trouble:
                log.warning("tokens: cannot be read, so the known tokens stay valid: %s", error)
            self._trouble = str(error)
            return
        if names:
            log.info("tokens: changed: %s", ", ".join(sorted(names)))
        self._trouble = ""

    def _run(self) -> None:
        while not self._stopping.wait(LOOK_SECONDS):
            self.look()
