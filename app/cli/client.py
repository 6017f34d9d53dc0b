"""The agent's API as methods, over one kept-alive connection pool. Thread-safe."""

from __future__ import annotations

import ipaddress
import re
from types import TracebackType
from typing import Annotated, Any, TypeVar

import httpx
import typer
from pydantic import BaseModel, ValidationError

from app.cli.faults import AgentAway, AgentRefused, NothingRecorded, NotUnderstood, OutcomeUnknown
from app.config.secret_files import is_sendable
from app.domain.errors import ConfigurationError
from app.domain.models import Intake, TaskPage, TaskStatus, TaskView, Ticket, TicketView

# HTTP clients that bypass proxies for this machine, and the classification of failed requests.

# With these errors, nothing of the request was sent.
_NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.UnsupportedProtocol, httpx.ProxyError)


def client(url: str, **options: Any) -> httpx.Client:
    """A client for the base address `url`. Raises ConfigurationError if the address, or a proxy of the environment, is
    invalid."""
    try:
        # A proxy cannot reach this machine's own addresses.
        return httpx.Client(base_url=url, trust_env=not is_local(url), **options)
    except (httpx.InvalidURL, ImportError, ValueError) as error:
        raise ConfigurationError(
            f"{url} cannot be used: {error}; correct the address, or HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY"
        ) from None


def get(url: str, seconds: float) -> httpx.Response:
    """Sends one GET request. Raises ConfigurationError, and httpx.RequestError if no answer arrives."""
    with client(url, timeout=seconds) as connection:
        return connection.get(url)


def is_local(url: str) -> bool:
    """Whether the address is a loopback address."""
    host = httpx.URL(url).host
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def was_sent(error: httpx.RequestError) -> bool:
    """Whether the server may have received the request and acted on it."""
    return not isinstance(error, _NOT_SENT)


def was_refused(error: BaseException | None) -> bool:
    """Whether the connection was refused: nothing listens at the address."""
    while error is not None:
        if isinstance(error, ConnectionRefusedError) or "Connection refused" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


TIMEOUT_SECONDS = 30.0
# A plain HTTP server does not answer a TLS handshake, since it waits for the end of a request's head. So a request to
# its https:// address would take the whole time-out. After this long, the client checks whether it is such a server.
HANDSHAKE_SECONDS = 1.0
_TASK_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,30}:[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
# API requests that the agent's messages recommend, and the commands that do the same.
_COMMANDS = {"`GET /tasks`": "`refund-agent task list`"}
_INTAKE = {201: Intake.NEW, 200: Intake.KNOWN, 202: Intake.LATER}
M = TypeVar("M", bound=BaseModel)


class FieldFault(BaseModel):
    """One field that the agent did not accept."""

    field: str
    detail: str


class Refusal(BaseModel):
    """The members of a problem document (RFC 9457) that the command line reports."""

    title: str
    detail: str
    code: str = ""
    errors: tuple[FieldFault, ...] = ()

    def sentence(self) -> str:
        """The problem in one line."""
        if self.errors:
            return "; ".join(f"{error.field}: {error.detail}" for error in self.errors)
        return self.detail


class AgentClient:
    """The client of one agent. Each method raises AgentAway, AgentRefused or NotUnderstood; those that change something
    also OutcomeUnknown."""

    def __init__(self, url: str, token: str) -> None:
        self.url = url.rstrip("/")
        self._http = client(self.url, headers={"Authorization": f"Bearer {token}"}, timeout=TIMEOUT_SECONDS)

    def __enter__(self) -> AgentClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def submit(self, ticket: Ticket) -> tuple[TaskView, Intake]:
        """Sends a ticket; returns its task, and whether the ticket was new."""
        remedy = "send the ticket again: the same ticket is the same task"
        answer = self._ask("POST", "/tasks", remedy, content=ticket.model_dump_json().encode())
        return _read(answer, TaskView), _INTAKE.get(answer.status_code, Intake.KNOWN)

    def get(self, task_id: str) -> TaskView:
        """One task."""
        return _read(self._ask("GET", f"{_path(task_id)}"), TaskView)

    def ticket(self, task_id: str) -> TicketView:
        """The task's ticket, redacted."""
        return _read(self._ask("GET", f"{_path(task_id)}/ticket"), TicketView)

    def list(self, tenant: str | None, status: TaskStatus | None, limit: int, after: str | None) -> TaskPage:
        """One page of tasks, oldest first. `after` is the `next_after` of the page before."""
        filters = {"tenant": tenant, "status": status and status.value, "limit": limit, "after": after}
        query = {name: value for name, value in filters.items() if value is not None}
        return _read(self._ask("GET", "/tasks", params=query), TaskPage)

    def act(self, task_id: str, verb: str, body: BaseModel | None = None) -> TaskView:
        """Pauses, resumes, reruns or terminates a task, as `verb` says."""
        content = body.model_dump_json(exclude_none=True).encode() if body else b""
        return _read(self._change(task_id, verb, content), TaskView)

    def decide(self, task_id: str, verb: str, body: BaseModel) -> tuple[TaskView, bool]:
        """Approves or rejects. Returns the task, and whether it has accepted the decision; False: not known yet."""
        answer = self._change(task_id, verb, body.model_dump_json(exclude_none=True).encode())
        return _read(answer, TaskView), answer.status_code == 200

    def _change(self, task_id: str, verb: str, content: bytes) -> httpx.Response:
        remedy = f"check with `refund-agent task show {task_id}` before you send it again"
        return self._ask("POST", f"{_path(task_id)}/{verb}", remedy, content=content)

    def _ask(self, method: str, path: str, in_doubt: str = "", **options: Any) -> httpx.Response:
        """Sends a request. `in_doubt` is the remedy if the outcome is unknown; empty for a request that only reads."""
        try:
            headers = {"Content-Type": "application/json"} if options.get("content") else {}
            answer = self._send(method, path, headers=headers, **options)
        except httpx.RequestError as error:
            raise self._no_answer(error, in_doubt) from None
        if answer.status_code >= 300:
            raise self._refusal(answer)
        return answer

    def _send(self, method: str, path: str, **options: Any) -> httpx.Response:
        if not self.url.startswith("https://"):
            return self._http.request(method, path, **options)
        timeout = httpx.Timeout(TIMEOUT_SECONDS, connect=HANDSHAKE_SECONDS)
        try:
            return self._http.request(method, path, timeout=timeout, **options)
        except (httpx.ConnectTimeout, httpx.ConnectError) as error:  # nothing of the request was sent
            if not was_refused(error) and _is_plain_agent(plain_url := f"http{self.url.removeprefix('https')}"):
                raise AgentAway(f"the agent at {self.url} speaks plain HTTP, not TLS; use {plain_url}") from None
            if isinstance(error, httpx.ConnectTimeout):
                return self._http.request(method, path, **options)
            raise

    def _no_answer(self, error: httpx.RequestError, in_doubt: str) -> AgentAway:
        where = f"at {self.url} ({type(error).__name__})"
        if was_refused(error):
            return AgentAway(f"the agent does not answer {where}; start it with `make up`, or name another with --url")
        if not was_sent(error):
            return AgentAway(f"the agent cannot be reached {where}: {error}; check the address and the network")
        if not in_doubt:
            return AgentAway(f"the agent's answer is incomplete {where}; nothing was changed, so try again")
        return OutcomeUnknown(f"the agent's answer is incomplete {where}, so the outcome is unknown; {in_doubt}")

    def _refusal(self, answer: httpx.Response) -> AgentAway | AgentRefused | NotUnderstood:
        try:
            refusal = Refusal.model_validate_json(answer.content)
        except ValidationError:
            return NotUnderstood(f"{self.url} answered {answer.status_code}, but not as this agent does; check --url")
        sentence = refusal.sentence()
        for request, command in _COMMANDS.items():
            sentence = sentence.replace(request, command)
        if answer.status_code == 503:
            return AgentAway(sentence, code=refusal.code)
        if answer.status_code == 401:
            sentence += " (give it with --token or REFUND_AGENT_TOKEN)"
        return AgentRefused(sentence, refusal=answer.status_code, code=refusal.code)


def _is_plain_agent(url: str) -> bool:
    """Whether an agent answers at this http:// address. Sends no token."""
    try:
        return get(f"{url}/healthz", HANDSHAKE_SECONDS).is_success
    except httpx.RequestError:
        return False


def _path(task_id: str) -> str:
    """The API path of a task. Raises NothingRecorded for an invalid id, which could form another path."""
    if not _TASK_ID.fullmatch(task_id):
        shape = "a task's id is tenant:ticket, such as acme:T-1063"
        raise NothingRecorded(f"there is no task {task_id[:100]!r}; {shape}; `refund-agent task list` shows them")
    return f"/tasks/{task_id}"


def _read(answer: httpx.Response, model: type[M]) -> M:
    try:
        return model.model_validate_json(answer.content)
    except ValidationError:
        raise NotUnderstood(
            f"{answer.url} did not answer with a {model.__name__}; use an agent and a command line of the same version"
        ) from None


# The agent's address and the token: from the options, else the environment, else this machine's state folder.

Url = Annotated[
    str | None,
    typer.Option("--url", help="The agent's address.  [env: REFUND_AGENT_URL]", show_default=False),
]
Token = Annotated[
    str | None,
    typer.Option(
        "--token",
        help="Bearer token; better in REFUND_AGENT_TOKEN, which other users of the machine cannot see."
        "  [default: the local token file]",
        show_default=False,
    ),
]
MODEL_URL = "http://127.0.0.1:8091"
SYSTEMS_URL = "http://127.0.0.1:8092"
SystemsUrl = Annotated[str, typer.Option("--systems-url", help="The sandbox's internal systems.")]
AsJson = Annotated[bool, typer.Option("--json", help="JSON for programs; the keys are stable.")]


def connect(url: str | None, token: str | None) -> AgentClient:
    """A client for the agent. Raises ConfigurationError if the address or the token is missing or invalid."""
    from app.config.settings import load

    settings = load()
    address = url or settings.agent_url
    if not address.startswith(("http://", "https://")):
        raise ConfigurationError(f"--url {address!r} is not an address; it must begin with http:// or https://")
    secret = token or settings.token or _local_token()
    if not is_sendable(secret):  # the message must not show it
        raise ConfigurationError(
            "the token holds a character that no token has (a space, a line break, an umlaut); give only the token "
            "in --token or REFUND_AGENT_TOKEN"
        )
    return AgentClient(address, secret)


def _local_token() -> str:
    from app.config.settings import load
    from app.tasks.access import read_local_token

    path = load().state_dir / "token"
    try:
        return read_local_token(path)
    except FileNotFoundError:
        raise ConfigurationError(
            f"no token: {path} is not there; start the agent here once, or give --token or REFUND_AGENT_TOKEN"
        ) from None
