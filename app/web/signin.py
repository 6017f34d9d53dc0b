"""Who is at the browser: a token once, in a form; from then on a cookie that holds a random number and nothing else.

Sessions live in memory: a restart of the agent asks everybody again, and no file holds what opens a page.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from urllib.parse import urlsplit

from flask import Request, Response

from app.access import Principal

COOKIE = "refund-agent-session"
LIFETIME = timedelta(hours=12)
MOST_SESSIONS = 1_000
HOME = "/pages/tasks"
# Where a sign-in may lead: to a page of ours. No host, no second slash, no backslash, nothing that is not plain.
_PAGE = re.compile(r"/pages(/[A-Za-z0-9._~:%-]+)*(\?[A-Za-z0-9._~:%=&-]*)?")


@dataclass(frozen=True)
class _Session:
    principal: Principal
    ends_at: datetime


class Sessions:
    """The sessions that are open. Thread-safe; when there are too many, the oldest gives way."""

    def __init__(
        self, clock: Callable[[], datetime], lifetime: timedelta = LIFETIME, most: int = MOST_SESSIONS
    ) -> None:
        self._clock = clock
        self._lifetime = lifetime
        self._most = most
        self._lock = threading.Lock()
        # By digest: how long a look-up takes says nothing about an id that is near.
        self._open: OrderedDict[str, _Session] = OrderedDict()

    def begin(self, principal: Principal) -> str:
        """Opens a session and returns its id, which nobody can guess."""
        session_id = secrets.token_urlsafe(32)
        with self._lock:
            self._open[_digest(session_id)] = _Session(principal, self._clock() + self._lifetime)
            while len(self._open) > self._most:
                self._open.popitem(last=False)
        return session_id

    def find(self, session_id: str | None) -> Principal | None:
        """Whose session it is; None for one that is unknown, over or ended."""
        key = _digest(session_id or "")
        with self._lock:
            session = self._open.get(key)
            if session is None:
                return None
            if self._clock() < session.ends_at:
                return session.principal
            del self._open[key]
            return None

    def end(self, session_id: str | None) -> None:
        """Ends a session, if there is one."""
        with self._lock:
            self._open.pop(_digest(session_id or ""), None)


def _digest(session_id: str) -> str:
    return hashlib.sha256(session_id.encode("utf-8", "surrogateescape")).hexdigest()


def local_page(wanted: str | None) -> str:
    """The page that `wanted` names, or the list of tasks when it names none of ours."""
    return wanted if wanted and _PAGE.fullmatch(wanted) else HOME


def sent_from_here(request: Request) -> bool:
    """Whether a page of this agent sent the form. A browser always says where a form comes from."""
    origin = urlsplit(request.headers.get("Origin", ""))
    return origin.scheme in ("http", "https") and origin.netloc == request.host


def give_cookie(response: Response, request: Request, session_id: str) -> None:
    """Hands the session to the browser, for this site alone. Behind a proxy that ends TLS only the form's origin says
    that the browser came by https."""
    encrypted = request.is_secure or request.headers.get("Origin", "").startswith("https://")
    response.set_cookie(
        COOKIE, session_id, max_age=LIFETIME, httponly=True, samesite="Strict", secure=encrypted, path="/"
    )


def take_cookie(response: Response) -> None:
    """Lets the browser forget its session."""
    response.delete_cookie(COOKIE, httponly=True, samesite="Strict", path="/")
