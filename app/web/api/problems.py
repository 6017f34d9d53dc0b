"""Answers every error as application/problem+json, without customers' texts and internals."""

from __future__ import annotations

import logging
import traceback
import uuid
from collections.abc import Iterable

from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException, MethodNotAllowed

from app.domain.errors import AccessDenied, LedgerUnavailable, RefundAgentError, Refused, TaskNotFound, Unreachable
from app.ledger.store.database import trouble
from app.web.api.messages import FieldProblem, Problem

CONTENT_TYPE = "application/problem+json"
RETRY_AFTER_SECONDS = 5
MAX_INSTANCE_CHARACTERS = 200
TYPE_PREFIX = "urn:refund-agent:problem:"

log = logging.getLogger(__name__)


class BadRequest(RefundAgentError):
    """A request whose body or query cannot be used."""

    code = "bad_request"
    status = 400
    title = "Bad request"


class WrongMediaType(BadRequest):
    """A body whose content type the route does not accept."""

    code = "unsupported_media_type"
    status = 415
    title = "Unsupported media type"


class NotText(BadRequest):
    """A body that is not UTF-8."""

    code = "malformed_text"
    title = "Malformed text"


class NotJson(BadRequest):
    """A body that is not JSON, or in which an object has the same key twice."""

    code = "malformed_json"
    title = "Malformed JSON"


class WrongFields(BadRequest):
    """Fields that cannot be accepted; `errors` names them."""

    code = "fields_not_acceptable"
    status = 422
    title = "Fields not acceptable"

    def __init__(self, message: str, errors: Iterable[FieldProblem]) -> None:
        super().__init__(message)
        self.errors = tuple(errors)


def install(app: Flask) -> None:
    """Registers handlers with `app` that answer every error, the agent's and Flask's, with a problem document."""
    app.register_error_handler(RefundAgentError, _answer_agent_error)
    app.register_error_handler(HTTPException, _answer_http_error)
    app.register_error_handler(Exception, _answer_unexpected)


def problem_type(code: str) -> str:
    """A problem's code as a URI, such as `urn:refund-agent:problem:task-not-found`."""
    return TYPE_PREFIX + code.replace("_", "-")


def http_code(name: str) -> str:
    """The code of an HTTP error, from its reason phrase: `method_not_allowed` for Method Not Allowed."""
    words = "".join(character if character.isalnum() else " " for character in name.lower()).split()
    return "_".join(words)


def make_problem(code: str, title: str, status: int, detail: str, instance: str) -> Problem:
    """A problem document; its type follows from its code."""
    return Problem(
        type=problem_type(code),
        code=code,
        title=title,
        status=status,
        detail=detail,
        instance=instance[:MAX_INSTANCE_CHARACTERS],
    )


def _answer_agent_error(error: RefundAgentError) -> Response:
    if error.status >= 500 and not isinstance(error, Unreachable):
        return _answer_unexpected(error)
    problem = make_problem(error.code, error.title, error.status, _detail(error), request.path)
    if isinstance(error, WrongFields):
        problem = problem.model_copy(update={"errors": error.errors})
    if isinstance(error, Refused):
        problem = problem.model_copy(update={"reason": error.reason})
    if isinstance(error, LedgerUnavailable):
        log.error("%s %s: %s (%s)", request.method, _rule(), error, error.code)
    response = _respond(problem)
    if isinstance(error, Unreachable):
        response.headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
    if isinstance(error, AccessDenied) and error.status == 401:
        response.headers["WWW-Authenticate"] = _challenge()
    return response


def _detail(error: RefundAgentError) -> str:
    if isinstance(error, TaskNotFound):
        # The same text for a missing task and for one that the token may not see, so that it does not tell which.
        task_id = (request.view_args or {}).get("task_id", "")
        return f"there is no task {task_id[:100]!r} for this token; `GET /tasks` lists the tasks that it may see"
    return str(error)


def _challenge() -> str:
    has_token = "Authorization" in request.headers
    return 'Bearer realm="refund-agent"' + (', error="invalid_token"' if has_token else "")


def _answer_http_error(error: HTTPException) -> Response:
    status = error.code or 500
    code = http_code(error.name)
    response = _respond(make_problem(code, error.name, status, _http_detail(error, status), request.path))
    if isinstance(error, MethodNotAllowed) and error.valid_methods:
        response.headers["Allow"] = ", ".join(sorted(error.valid_methods))
    return response


def _http_detail(error: HTTPException, status: int) -> str:
    if status == 404:
        return "there is nothing at this address; `GET /openapi.json` lists the routes"
    if status == 405:
        return f"{request.method} is not allowed at this address; the Allow header lists the allowed methods"
    if status == 413:
        return f"the body is larger than {request.max_content_length} bytes; send a smaller one"
    return error.description or error.name


def _answer_unexpected(error: Exception) -> Response:
    database_error = trouble(error)
    if database_error is not None:
        return _answer_agent_error(database_error)
    error_id = uuid.uuid4().hex
    # Only types and places: an exception's message may contain a customer's text.
    places = "".join(traceback.format_tb(error.__traceback__))
    log.error("error %s: %s %s: %s\n%s", error_id, request.method, _rule(), _types(error), places)
    detail = f"the agent failed; look for error {error_id} in its log"
    kind = error if isinstance(error, RefundAgentError) else RefundAgentError
    problem = make_problem(kind.code, kind.title, 500, detail, request.path)
    return _respond(problem.model_copy(update={"error_id": error_id}))


def _rule() -> str:
    return request.url_rule.rule if request.url_rule else "(no route)"


def _types(error: BaseException) -> str:
    chain: list[str] = []
    current: BaseException | None = error
    while current is not None and len(chain) < 10:
        chain.append(type(current).__qualname__)
        current = current.__cause__ or current.__context__
    return " from ".join(chain)


def _respond(problem: Problem) -> Response:
    return Response(problem.model_dump_json(exclude_none=True), status=problem.status, content_type=CONTENT_TYPE)
