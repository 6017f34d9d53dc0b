"""Builds the Flask app from the task service, the ledger, the tokens and the pages."""

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
# Time for a whole request, however long the engine or a database takes: waitress has few threads.
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
    """The web app of the API and, if given, the pages.

    `access` holds the accepted tokens, `vitals` answers the probes, `front` is the public address. `pages` is the
    blueprint of `app.web.pages`, which sets its own security headers. Only tests omit `ledger` or `vitals`.
    """
    app = Flask(__name__, static_folder=None, template_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY_BYTES
    app.url_map.merge_slashes = False  # the redirect would not be in the OpenAPI document
    problems.install(app)
    app.register_blueprint(make_blueprint(service, access, ledger, version, front, vitals))
    if pages is not None:
        app.register_blueprint(pages)
    app.after_request(_secure)
    app.wsgi_app = front.serve(_with_deadline(app.wsgi_app))  # type: ignore[method-assign, assignment]  # as Flask says
    return app


def _with_deadline(serve: Wsgi) -> Wsgi:
    """Bounds the time of all calls to the engine, the databases and other services within one request."""

    def serve_with_deadline(wsgi_environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        with within(_REQUEST_SECONDS):
            return serve(wsgi_environ, start_response)

    return serve_with_deadline


def _secure(response: Response) -> Response:
    for name, value in SECURITY_HEADERS.items():
        response.headers.setdefault(name, value)
    return response
