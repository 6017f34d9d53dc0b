"""Exempts calls to this machine from the environment's proxies. Standard library only, since `runtime/` uses it too.

gRPC, urllib and requests read the proxy variables themselves. Other calls, such as daprd's to a model provider, still
use the proxy.
"""

from __future__ import annotations

from collections.abc import Mapping

_OWN = ("127.0.0.1", "localhost", "::1")
# gRPC prefers this variable to `no_proxy` if it is set.
_GRPC = "no_grpc_proxy"


def bypass_proxies(environment: Mapping[str, str], *hosts: str) -> dict[str, str]:
    """The variables to set in `environment`, so that calls to this machine and to `hosts` bypass every proxy."""
    before = environment.get("no_proxy") or environment.get("NO_PROXY") or ""
    value = _add_hosts(before, *hosts)
    grpc = {_GRPC: _add_hosts(environment[_GRPC], *hosts)} if environment.get(_GRPC) else {}
    return {"no_proxy": value, "NO_PROXY": value, **grpc}


def _add_hosts(before: str, *hosts: str) -> str:
    names = [part.strip() for part in before.split(",") if part.strip()]
    if "*" in names:  # means no proxy at all, but only if it stands alone
        return "*"
    return ",".join(dict.fromkeys([*names, *_OWN, *hosts]))
