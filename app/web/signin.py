"""Who is at the browser: a token once, in a form; from then on a cookie that holds a random number and nothing else."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Protocol

from flask import Request, Response

from app.web.front import Front

COOKIE = "refund-agent-session"
LIFETIME = timedelta(hours=12)
HOME = "/pages/tasks"
# Where a sign-in may lead: to a page of ours. No host, no second slash, no backslash, nothing that is not plain.
_PAGE = re.compile(r"/pages(/[A-Za-z0-9._~:%-]+)*(\?[A-Za-z0-9._~:%=&-]*)?")


class SessionStore(Protocol):
    """The sessions that are open."""

    def begin(self, holder: str) -> str:
        """Opens a session for the holder of a token, who is named by its digest; returns its id."""

    def find(self, session_id: str | None) -> str | None:
        """The holder of the session; None for one that is unknown, over or ended."""

    def end(self, session_id: str | None) -> None:
        """Ends a session, if there is one."""


def local_page(wanted: str | None) -> str:
    """The page that `wanted` names, or the list of tasks when it names none of ours."""
    return wanted if wanted and _PAGE.fullmatch(wanted) else HOME


def give_cookie(response: Response, request: Request, session_id: str, front: Front) -> None:
    """Hands the session to the browser, for this agent's pages alone. Behind a proxy that ends TLS only the form's
    origin says that the browser came by https."""
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


def take_cookie(response: Response, front: Front) -> None:
    """Lets the browser forget its session."""
    response.delete_cookie(COOKIE, httponly=True, samesite="Strict", path=front.prefix or "/")
