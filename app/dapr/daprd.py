"""Address and token of the sidecar. Every client of its API is made from `Daprd`.

daprd answers callers without its token with 401 (HTTP) or Unauthenticated (gRPC); only its health is open.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import httpx

TOKEN_HEADER = "dapr-api-token"  # noqa: S105 - the name of a header, not a secret
# gRPC would look for a proxy in the environment, for loopback too.
GRPC_WITHOUT_PROXY = ("grpc.enable_http_proxy", 0)
# The text of `workarounds.LOST_METRICS`, with status 500: after a reload the previous runtime stays registered, so each
# series exists twice until the process is restarted.
_DUPLICATE_METRIC = "was collected before with the same name and label values"


@dataclass(frozen=True)
class Daprd:
    """One sidecar.

    http: address of its HTTP API (`http://host:port`). grpc: address of its gRPC API (`host:port`). token: opens both;
    empty if the sidecar asks for none.
    """

    http: str
    grpc: str
    token: str = field(repr=False)

    @property
    def headers(self) -> dict[str, str]:
        """The HTTP headers that every request needs; none without a token."""
        return {TOKEN_HEADER: self.token} if self.token else {}

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """The gRPC metadata that every call needs; none without a token."""
        return tuple(self.headers.items())

    def client(self, seconds: float) -> httpx.Client:
        """A client of the HTTP API with a time-out of `seconds` a call. The caller closes it."""
        import httpx

        return httpx.Client(base_url=self.http, headers=self.headers, timeout=seconds, trust_env=False)


def has_lost_metrics(answer: str) -> bool:
    """Whether an error of the metrics port means that daprd shows no metrics until it is restarted (`LOST_METRICS`)."""
    return _DUPLICATE_METRIC in answer
