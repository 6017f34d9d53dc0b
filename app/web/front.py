"""The agent's public address: its own, or that of a reverse proxy, which may add a path prefix.

    location /refunds/ { proxy_pass http://127.0.0.1:8088; }     REFUND_AGENT_PUBLIC_URL=https://tools.example.com/refunds

The address comes from the setting alone. Headers such as X-Forwarded-Host can be forged and are not read.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from flask import Request

from app.domain.errors import ConfigurationError

SETTING = "REFUND_AGENT_PUBLIC_URL"
_FORM = re.compile(r"https?://(\[[0-9a-f:]+\]|[a-z0-9.-]+)(:[0-9]{1,5})?(/[a-z0-9._~-]+)*/?", re.IGNORECASE)
_DEFAULT_PORTS = {"http": ":80", "https": ":443"}
_SHOWN_CHARACTERS = 100

Wsgi = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


@dataclass(frozen=True)
class Front:
    """The public address: `origin` as browsers send it, and the path `prefix`. Both are empty without a proxy."""

    origin: str = ""
    prefix: str = ""

    def path(self, path: str) -> str:
        """The public path for one of the app's own paths."""
        return self.prefix + path

    def is_same_origin(self, request: Request) -> bool:
        """Whether a page of this agent sent the form, by the Origin header, which browsers send with every form."""
        header = request.headers.get("Origin", "")
        if self.origin and _origin(header) == self.origin:
            return True
        origin = urlsplit(header)
        return origin.scheme in ("http", "https") and origin.netloc == request.host

    def foreign_form_detail(self, request: Request) -> str:
        """Why a form from another origin is refused: the received origin and host, and the remedy."""
        origin, host = (_shorten(request.headers.get(name, "")) for name in ("Origin", "Host"))
        setting = f", and {SETTING} is {self.origin}{self.prefix}" if self.origin else ""
        return (
            f"This form was not sent by a page of this agent: its origin is {origin}, the requested host is "
            f"{host}{setting}. Send the form from this agent's page. Behind a reverse proxy, set {SETTING} to "
            "the address that the browser shows, such as https://tools.example.com/refunds, and restart the agent."
        )

    def serve(self, app: Wsgi) -> Wsgi:
        """`app` with the prefix removed from the request's path, if the proxy has not removed it."""
        if not self.prefix:
            return app

        def serve_without_prefix(wsgi_environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
            path = wsgi_environ.get("PATH_INFO", "")
            if path == self.prefix or path.startswith(f"{self.prefix}/"):
                wsgi_environ["PATH_INFO"] = path.removeprefix(self.prefix) or "/"
            return app(wsgi_environ, start_response)

        return serve_without_prefix


def make_front(public_url: str) -> Front:
    """The front at `public_url`; empty without a proxy. Raises ConfigurationError if it is malformed."""
    if not public_url:
        return Front()
    if not _FORM.fullmatch(public_url):
        raise ConfigurationError(
            f"environment: {SETTING}: {public_url!r} is not an address such as https://tools.example.com/refunds; "
            "write scheme, host, port and path only, without query or fragment"
        )
    return Front(_origin(public_url), urlsplit(public_url).path.rstrip("/"))


def _origin(url: str) -> str:
    """Scheme and host as a browser sends them: in lower case, without the scheme's default port."""
    scheme, _, rest = url.lower().partition("://")
    return f"{scheme}://{rest.partition('/')[0].removesuffix(_DEFAULT_PORTS.get(scheme, ''))}"


def _shorten(value: str) -> str:
    return value[:_SHOWN_CHARACTERS] if value else "(none)"
