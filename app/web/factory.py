"""Makes the Flask app out of a task service and the tokens; holds no state of its own, opens nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from flask import Blueprint, Flask, Response

from app.domain.deadline import within
from app.tasks.access import Access
from app.web.api import problems
from app.web.api.binding import make_blueprint
from app.web.api.handlers import LedgerApi, Probes, TasksApi
from app.web.front import Front, Wsgi

MAX_BODY_BYTES = 256 * 1024
# However long an engine or a database takes: after this the thread is needed for somebody else.
_REQUEST_SECONDS = 60.0
NO_PROXY = Front()

SECURITY_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


def create_app(
    service: TasksApi,
    access: Access,
    *,
    version: str,
    ledger: LedgerApi | None = None,
    vitals: Probes | None = None,
    pages: Blueprint | None = None,
    front: Front = NO_PROXY,
) -> Flask:
    """The web app over `service` and the `ledger`, open to the tokens of `access`; it is only without a ledger, or
    without `vitals` for the probes, in tests. `pages` is what people see at a browser (`app.web.pages`); it sets the
    headers that it needs itself. `front` is where callers find it."""
    app = Flask(__name__, static_folder=None, template_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY_BYTES
    app.url_map.merge_slashes = False  # a redirect would be an answer that the document does not name
    problems.install(app)
    app.register_blueprint(make_blueprint(service, access, ledger, version, front, vitals))
    if pages is not None:
        app.register_blueprint(pages)
    app.after_request(_secure)
    app.wsgi_app = front.serve(_in_time(app.wsgi_app))  # type: ignore[method-assign, assignment]  # as Flask says
    return app


def _in_time(serve: Wsgi) -> Wsgi:
    """Whoever is asked for something on behalf of a request has so long to answer."""

    def serve_in_time(asked: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        with within(_REQUEST_SECONDS):
            return serve(asked, start_response)

    return serve_in_time


def _secure(response: Response) -> Response:
    for name, value in SECURITY_HEADERS.items():
        response.headers.setdefault(name, value)
    return response
