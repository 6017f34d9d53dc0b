"""Who may do what: tokens, roles, tenants. Rules only, except for the local token's own file.

A token is kept as the SHA-256 of a random secret; the secret itself is never stored here or logged.
`admin` stands for every role. A token is bound to tenants, or to all of them (`"*"`).
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
    """One token's record: its name stands in decisions, its secret only as a digest."""

    name: CallerName
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", repr=False)
    roles: Annotated[frozenset[Role], Field(min_length=1)]
    tenants: Literal["*"] | Annotated[frozenset[TenantId], Field(min_length=1)]


class TokenFile(Frozen):
    """The form of a token file: `{"tokens": [{name, sha256, roles, tenants}, ...]}`."""

    tokens: tuple[Token, ...] = Field(min_length=1)


@dataclass(frozen=True)
class Principal:
    """Who is calling. `tenants` is None when every tenant is open to it."""

    name: str
    roles: frozenset[Role]
    tenants: frozenset[str] | None

    def sees(self, tenant: str) -> bool:
        """Whether tasks of this tenant exist for the caller at all."""
        return self.tenants is None or tenant in self.tenants

    def may(self, role: Role) -> bool:
        """Whether the caller has the role; an admin has every one."""
        return role in self.roles or Role.ADMIN in self.roles

    def require(self, role: Role, tenant: str | None = None) -> None:
        """Raises AccessDenied (403) without the role, or, when a tenant is given, without that tenant."""
        if not self.may(role):
            raise AccessDenied(f"token {self.name!r} has no role {role.value!r}; ask an admin for one that has")
        if tenant is not None and not self.sees(tenant):
            raise AccessDenied(f"token {self.name!r} is not bound to tenant {tenant!r}; use that tenant's own token")


class Access:
    """The tokens that are valid here."""

    def __init__(self, tokens: Iterable[Token]) -> None:
        self._tokens = tuple(tokens)

    def replace(self, tokens: Iterable[Token]) -> frozenset[str]:
        """From now on these are valid. Returns the names of those that came, went or changed."""
        before, self._tokens = set(self._tokens), tuple(tokens)
        return frozenset(token.name for token in before ^ set(self._tokens))

    def authenticate(self, header: str | None) -> Principal:
        """The caller behind an `Authorization` header. Raises AccessDenied (401) for anything but a known
        bearer token. Every digest is compared, so the time taken says nothing about which one was near."""
        scheme, _, secret = (header or "").partition(" ")
        if scheme.lower() != "bearer" or not secret.strip():
            raise AccessDenied("no bearer token; send the header `Authorization: Bearer <token>`", status=401)
        digest = digest_of(secret.strip())
        found = [token for token in self._tokens if hmac.compare_digest(token.sha256, digest)]
        if not found:
            raise AccessDenied("the bearer token is not known here; use a token of this agent", status=401)
        return _principal(found[0])

    def holder(self, digest: str) -> Principal | None:
        """The holder of the token of that digest; None when there is no such token any more."""
        return next((_principal(token) for token in self._tokens if token.sha256 == digest), None)


def _principal(token: Token) -> Principal:
    tenants = None if token.tenants == ALL_TENANTS else frozenset(token.tenants)
    return Principal(name=token.name, roles=token.roles, tenants=tenants)


def digest_of(secret: str) -> str:
    """The lower-case hex SHA-256 under which a secret is recorded. Unsalted: secrets here are random."""
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()


def parse_tokens(text: str, source: str) -> tuple[Token, ...]:
    """Reads a token file's text. Raises ConfigurationError that names `source`, the record and the key."""
    try:
        raw = json.loads(text, object_pairs_hook=_without_twins)
        tokens = TokenFile.model_validate(raw).tokens
    except ValidationError as error:
        raise ConfigurationError(f"{source}: {_first_fault(error)}; correct the token file") from None
    except ValueError as error:
        raise ConfigurationError(f"{source}: {error}; correct the token file") from None
    for key in ("name", "sha256"):
        values = [getattr(token, key) for token in tokens]
        if len(set(values)) < len(values):
            raise ConfigurationError(f"{source}: two tokens have the same {key}; give each token its own")
    return tokens


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = [key for key, _ in pairs]
    twins = sorted({key for key in keys if keys.count(key) > 1})
    if twins:
        raise ValueError(f"the key {twins[0]!r} stands twice in one record")
    return dict(pairs)


def _first_fault(error: ValidationError) -> str:
    fault = error.errors(include_input=False, include_url=False)[0]
    # The branches of a union stand in the path too, as "literal['*']": they are no keys of the file.
    where = ".".join(str(part) for part in fault["loc"] if isinstance(part, int) or part.isidentifier())
    return f"{where or 'the file'}: {fault['msg']}"


@dataclass(frozen=True)
class LocalToken:
    """The token of the person at this machine: its record, and the file that alone holds the secret."""

    record: Token
    path: Path


def make_local_token(path: Path) -> LocalToken:
    """The local admin token: made at the first start (file mode 0600), read back at later ones.

    Raises ConfigurationError when the file is open to others or holds no token, and OSError when the
    folder cannot be written. Two processes that start together end with the same token.
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
        raise ConfigurationError(f"{path}: mode {mode:04o} lets others read the token; run `chmod 600 {path}`")
    secret = path.read_text(encoding="ascii", errors="replace").strip()
    if len(secret) < MIN_SECRET_CHARACTERS or not secret.isascii():
        raise ConfigurationError(f"{path}: holds no token; delete it and start the agent again")
    return secret


# Has the agent notice which tokens are valid without being started again, as soon as the secret store says so.

LOOK_SECONDS = 5.0


class TokenWatch:
    """Reads the tokens every few seconds, from `start` to `stop`. Those that are known stay while the store does not
    answer, or holds what is none."""

    def __init__(self, access: Access, read: Callable[[], Iterable[Token]]) -> None:
        self._access = access
        self._read = read
        self._trouble = ""
        self._told_to_stop = threading.Event()
        self._thread = threading.Thread(target=self._looks, name="token-watch", daemon=True)

    def start(self) -> None:
        """Begins."""
        self._thread.start()

    def stop(self) -> None:
        """Ends after the look that it is at."""
        self._told_to_stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def look(self) -> None:
        """Reads once. Says what is wrong once, and when it is over."""
        try:
            names = self._access.replace(self._read())
        except (RefundAgentError, OSError) as error:
            if str(error) != self._trouble:
                log.warning("tokens: those that were valid stay so: %s", error)
            self._trouble = str(error)
            return
        if names:
            log.info("tokens: changed: %s", ", ".join(sorted(names)))
        self._trouble = ""

    def _looks(self) -> None:
        while not self._told_to_stop.wait(LOOK_SECONDS):
            self.look()
