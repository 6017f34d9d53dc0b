"""How the command line asks over HTTP: this machine past every proxy, and what became of a request that failed."""

from __future__ import annotations

import ipaddress
from typing import Any

import httpx

from app.domain.errors import ConfigurationError

# Nothing of the request was sent.
_NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.UnsupportedProtocol, httpx.ProxyError)


def client(url: str, **options: Any) -> httpx.Client:
    """A client for that address. Raises ConfigurationError for an address, or a proxy of the environment, that is
    none."""
    try:
        # A proxy has no way to this machine's own addresses.
        return httpx.Client(base_url=url, trust_env=not is_local(url), **options)
    except (httpx.InvalidURL, ImportError, ValueError) as error:
        raise ConfigurationError(
            f"{url} cannot be asked: {error}; correct the address, or HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY"
        ) from None


def get(url: str, seconds: float) -> httpx.Response:
    """One question. Raises ConfigurationError, and httpx.TransportError when nobody answers."""
    with client(url, timeout=seconds) as asking:
        return asking.get(url)


def is_local(url: str) -> bool:
    """Whether an address is this machine's own."""
    host = httpx.URL(url).host
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def was_sent(error: httpx.RequestError) -> bool:
    """Whether the other side may have got the request, and acted on it."""
    return not isinstance(error, _NOT_SENT)


def was_refused(error: BaseException | None) -> bool:
    """Whether nobody listens at the address."""
    while error is not None:
        if isinstance(error, ConnectionRefusedError) or "Connection refused" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False
