"""Keeps the proxies that an environment names out of calls to this machine; standard library only, for `runtime/` too.

gRPC, urllib and requests read those variables on their own. Calls to anywhere else, such as daprd's to a model
provider, still take the proxy.
"""

from __future__ import annotations

from collections.abc import Mapping

_OWN = ("127.0.0.1", "localhost", "::1")
# gRPC prefers its own name to the general one, where it is set.
_GRPC = "no_grpc_proxy"


def past_proxies(environment: Mapping[str, str], *hosts: str) -> dict[str, str]:
    """The variables to set, so that this machine and `hosts` are called directly."""
    before = environment.get("no_proxy") or environment.get("NO_PROXY") or ""
    value = _with(before, *hosts)
    grpc = {_GRPC: _with(environment[_GRPC], *hosts)} if environment.get(_GRPC) else {}
    return {"no_proxy": value, "NO_PROXY": value, **grpc}


def _with(before: str, *hosts: str) -> str:
    named = [part.strip() for part in before.split(",") if part.strip()]
    if "*" in named:  # no proxy at all; beside other names it would mean nothing
        return "*"
    return ",".join(dict.fromkeys([*named, *_OWN, *hosts]))
