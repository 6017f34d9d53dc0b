"""How daprd's API is called from everywhere: with the token that opens it, and past every proxy.

daprd answers callers without its token with 401 (HTTP) or Unauthenticated (gRPC); its health alone is open.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import httpx

TOKEN_HEADER = "dapr-api-token"  # noqa: S105 - the name of a header, not a secret
# gRPC would look for a proxy in the environment, for loopback too.
PAST_PROXIES = ("grpc.enable_http_proxy", 0)
# What `workarounds.LOST_METRICS` looks like, with status 500: the runtime before stays registered, so each series is
# there twice, until the process is another one.
_TWICE = "was collected before with the same name and label values"


@dataclass(frozen=True)
class Daprd:
    """One sidecar: the address of its HTTP API (`http://host:port`), that of its gRPC API (`host:port`), and the token
    that opens both; empty when it asks for none."""

    http: str
    grpc: str
    token: str = field(repr=False)

    @property
    def headers(self) -> dict[str, str]:
        """What a request brings."""
        return {TOKEN_HEADER: self.token} if self.token else {}

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """The same for gRPC."""
        return tuple(self.headers.items())

    def client(self, seconds: float) -> httpx.Client:
        """A client of the HTTP API whose calls give up after so many seconds; to be closed."""
        import httpx

        return httpx.Client(base_url=self.http, headers=self.headers, timeout=seconds, trust_env=False)


def has_lost_metrics(answer: str) -> bool:
    """Whether a failed answer of the metrics port is that of a daprd which shows none until it is started again."""
    return _TWICE in answer
