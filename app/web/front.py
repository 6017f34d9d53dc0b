"""Where browsers find the agent: at its own address, or at that of a reverse proxy, which may put a path before ours.

    location /refunds/ { proxy_pass http://127.0.0.1:8088; }     REFUND_AGENT_PUBLIC_URL=https://tools.example.com/refunds

Only the setting says where that is. Headers such as X-Forwarded-Host are anybody's word, and nothing reads them.
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
    """The public address: `origin` as a browser sends it, `prefix` before each path. Both are empty without a proxy."""

    origin: str = ""
    prefix: str = ""

    def path(self, path: str) -> str:
        """A path of ours as a browser has to ask for it."""
        return self.prefix + path

    def sent_from_here(self, request: Request) -> bool:
        """Whether a page of this agent sent the form. A browser always says where a form comes from."""
        given = request.headers.get("Origin", "")
        if self.origin and _origin(given) == self.origin:
            return True
        origin = urlsplit(given)
        return origin.scheme in ("http", "https") and origin.netloc == request.host

    def foreign(self, request: Request) -> str:
        """Why a form was not taken, with what was seen and the remedy."""
        origin, host = (_shown(request.headers.get(name, "")) for name in ("Origin", "Host"))
        here = f", and {SETTING} is {self.origin}{self.prefix}" if self.origin else ""
        return (
            f"This form did not come from this agent's own page: the browser sent the origin {origin}, the agent was "
            f"asked as {host}{here}. Fill it in here. Behind a reverse proxy, set {SETTING} to the address that the "
            "browser shows, such as https://tools.example.com/refunds, and start the agent again."
        )

    def serve(self, app: Wsgi) -> Wsgi:
        """Takes the prefix off the path, where the proxy has left it on."""
        if not self.prefix:
            return app

        def without_prefix(call: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
            path = call.get("PATH_INFO", "")
            if path == self.prefix or path.startswith(f"{self.prefix}/"):
                call["PATH_INFO"] = path.removeprefix(self.prefix) or "/"
            return app(call, start_response)

        return without_prefix


def make_front(public_url: str) -> Front:
    """The front at that address; empty: no proxy. Raises ConfigurationError."""
    if not public_url:
        return Front()
    if not _FORM.fullmatch(public_url):
        raise ConfigurationError(
            f"environment: {SETTING}: {public_url!r} is no address such as https://tools.example.com/refunds; "
            "write scheme, host and path, without query, and nothing else"
        )
    return Front(_origin(public_url), urlsplit(public_url).path.rstrip("/"))


def _origin(url: str) -> str:
    """Scheme and host as a browser sends them: in small letters, without the port that the scheme implies."""
    scheme, _, rest = url.lower().partition("://")
    return f"{scheme}://{rest.partition('/')[0].removesuffix(_DEFAULT_PORTS.get(scheme, ''))}"


def _shown(value: str) -> str:
    return value[:_SHOWN_CHARACTERS] if value else "(none)"
