"""Sign-in for browsers: the user enters a token once; after that a cookie holds the random id of a session."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Protocol

from flask import Request, Response

from app.web.front import Front

COOKIE = "refund-agent-session"
LIFETIME = timedelta(hours=12)
HOME = "/pages/tasks"
# The pages to which a sign-in may redirect. Anything that could name another host, such as `//` or a backslash, fails.
_PAGE = re.compile(r"/pages(/[A-Za-z0-9._~:%-]+)*(\?[A-Za-z0-9._~:%=&-]*)?")


class SessionStore(Protocol):
    """The open sessions of the pages."""

    def begin(self, holder: str) -> str:
        """Opens a session for the token whose digest is `holder`; returns the session's id."""

    def find(self, session_id: str | None) -> str | None:
        """The digest of the session's token; None if the session is unknown, expired or ended."""

    def end(self, session_id: str | None) -> None:
        """Ends the session; does nothing if it is unknown."""


def local_page(wanted: str | None) -> str:
    """`wanted` if it is the path of one of the pages, otherwise the path of the task list."""
    return wanted if wanted and _PAGE.fullmatch(wanted) else HOME


def set_cookie(response: Response, request: Request, session_id: str, front: Front) -> None:
    """Sets the session cookie. Behind a proxy that terminates TLS, only the form's origin shows that the browser uses
    https."""
    encrypted = request.is_secure or request.headers.get("Origin", "").lower().startswith("https://")
    response.set_cookie(
        COOKIE,
        session_id,
        max_age=LIFETIME,
        httponly=True,
        samesite="Strict",
        secure=encrypted,
        path=front.prefix or "/",
    )


def delete_cookie(response: Response, front: Front) -> None:
    """Deletes the session cookie in the browser."""
    response.delete_cookie(COOKIE, httponly=True, samesite="Strict", path=front.prefix or "/")
