"""What Dapr's Conversation API says becomes an answer, or an error that says whether asking again helps."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest
from dapr.clients.exceptions import DaprGrpcError
from grpc import RpcError, StatusCode

from app.dapr.daprd import Daprd
from app.domain.errors import FailureCause, ModelRefused, ModelUnavailable
from app.domain.models import UsageBasis
from app.llm import conversation
from app.llm.conversation import DaprConversation, Message, ToolRequest
from app.pricing.charge_types import NOT_REPORTED, TokenUsage

PREFIX = "failed conversing with component llm: "


@pytest.mark.parametrize(
    ("details", "code", "said"),
    [
        ("API returned unexpected status code: 429: slow down", "rate_limit", "the provider answers with status 429"),
        ("API returned unexpected status code: 500: oops", "status", "the provider answers with status 500"),
        ("API returned unexpected status code: 504: late", "no_answer_in_time", "the provider answers with status 504"),
        ("API returned unexpected status code: 502: gone", "cut", "the provider answers with status 502"),
        ("circuit breaker is open", "breaker_open", "its circuit breaker is open"),
        ("too many requests", "breaker_open", "lets one probe through"),
        ("context deadline exceeded", "no_answer_in_time", "no answer in time"),
        ("request timeout: API call exceeded deadline", "no_answer_in_time", "no answer in time"),
        ("network error: failed to reach API server", "cut", "the provider is not there"),
        ("dial tcp 127.0.0.1:1: connect: connection refused", "refused_connection", "the provider is not there"),
        ("failed to connect to all addresses; connection refused", "sidecar_gone", "the sidecar is not there"),
        ("unexpected EOF", "cut", "the connection was cut"),
        ("invalid character '<' looking for beginning of value", "malformed", "the answer was not JSON"),
        ("something nobody has seen", "model_unavailable", "the call failed"),
    ],
)
def test_what_may_pass_is_worth_another_try(details: str, code: str, said: str) -> None:
    error = conversation._translate("llm", PREFIX + details)
    assert isinstance(error, ModelUnavailable)
    assert said in str(error)
    assert error.code == code


# How each of Dapr's clients tells a status: OpenAI's and Anthropic's, Mistral's, Bedrock's.
WORDINGS = (
    "API returned unexpected status code: {}: bad key sk-123",
    "(HTTP Error {}) {{sk-123}}",
    "operation error Bedrock Runtime: InvokeModel, https response error StatusCode: {}, RequestID: sk-123",
)


@pytest.mark.parametrize("wording", WORDINGS)
@pytest.mark.parametrize(
    ("status", "mend"),
    [
        (400, "takes such requests"),
        (401, "check the key"),
        (402, "balance"),
        (403, "what the key may use"),
        (404, "the model's name"),
        (413, "too long"),
        (422, "check key, model name and endpoint"),
    ],
)
def test_what_will_not_change_is_not_asked_again_and_says_what_to_mend(wording: str, status: int, mend: str) -> None:
    error = conversation._translate("llm", PREFIX + wording.format(status))
    assert isinstance(error, ModelRefused)
    assert error.code == FailureCause.MODEL_REFUSED
    for said in (f"status {status}", mend, "components/llm.yaml", "`task resume`"):
        assert said in str(error)
    assert "sk-123" not in str(error)


@pytest.mark.parametrize("wording", WORDINGS)
@pytest.mark.parametrize("status", [408, 409, 425, 429, 500, 503])
def test_what_asks_for_patience_is_asked_again(wording: str, status: int) -> None:
    assert isinstance(conversation._translate("llm", PREFIX + wording.format(status)), ModelUnavailable)


def test_the_providers_own_words_do_not_make_a_refusal() -> None:
    quoting = "API returned unexpected status code: 500: I was told 'status code: 401' and 404 Not Found"
    assert isinstance(conversation._translate("llm", PREFIX + quoting), ModelUnavailable)


def test_a_component_that_is_being_replaced_is_waited_for() -> None:
    error = conversation._translate("llm", "failed finding conversation component llm")
    assert isinstance(error, ModelUnavailable)
    assert FailureCause.from_error(error.stored_text).no_model_worked
    assert "the sidecar has not loaded it (`refund-agent doctor` says why)" in str(error)


class Sidecar:
    """Fails with what it is given, then answers."""

    def __init__(self, *failures: str) -> None:
        self.failures = list(failures)

    async def converse_alpha2(self, **_: Any) -> Any:
        """One call."""
        if self.failures:
            raise DaprGrpcError(FailedRequest(self.failures.pop(0)))
        return output(usage(1, 1), content="hello")


class FailedRequest(RpcError):  # type: ignore[misc]  # grpc ships no types
    """What daprd says of a call that failed."""

    def __init__(self, details: str, code: StatusCode = StatusCode.INTERNAL) -> None:
        self._details = details
        self._code = code

    def code(self) -> StatusCode:
        """What it was made with."""
        return self._code

    def details(self) -> str:
        """Its words."""
        return self._details

    def trailing_metadata(self) -> tuple[()]:
        """None."""
        return ()


class Metadata:
    """A sidecar that tells its components; `broken` says why it does not."""

    def __init__(self, **types: str) -> None:
        self.types = types
        self.broken: Exception | None = None
        self.slow = 0.0

    async def get_metadata(self) -> SimpleNamespace:
        """Its components."""
        await asyncio.sleep(self.slow)
        if self.broken:
            raise self.broken
        return SimpleNamespace(registered_components=[SimpleNamespace(name=n, type=t) for n, t in self.types.items()])


def test_the_components_type_is_asked_for_at_each_moment() -> None:
    sidecar = Metadata(llm="conversation.openai", statestore="state.sqlite")
    model = DaprConversation("llm", Daprd("http://127.0.0.1:1", "127.0.0.1:1", ""))
    model._client = cast(Any, sidecar)
    assert asyncio.run(model.provider(5)) == "conversation.openai"
    sidecar.types["llm"] = "conversation.echo"
    assert asyncio.run(model.provider(5)) == "conversation.echo"
    del sidecar.types["llm"]
    assert asyncio.run(model.provider(5)) == "", "a component that is being changed is none"


def test_a_sidecar_that_does_not_tell_its_components_in_time_is_not_waited_for() -> None:
    sidecar = Metadata(llm="conversation.openai")
    model = DaprConversation("llm", Daprd("http://127.0.0.1:1", "127.0.0.1:1", ""))
    assert asyncio.run(model.provider(0.01)) is None, "nobody is there"
    model._client = cast(Any, sidecar)
    sidecar.slow = 60
    assert asyncio.run(model.provider(0.01)) is None
    sidecar.slow, sidecar.broken = 0, DaprGrpcError(FailedRequest("gone"))
    assert asyncio.run(model.provider(5)) is None


def test_a_connection_that_lost_its_sidecar_is_not_asked_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    lost, found = Metadata(), Metadata(llm="conversation.openai")
    lost.broken = DaprGrpcError(FailedRequest("gone", StatusCode.UNAVAILABLE))
    model = DaprConversation("llm", Daprd("http://127.0.0.1:1", "127.0.0.1:1", ""))
    clients = [cast(Any, found), cast(Any, lost)]

    async def connected(_seconds: float = 1) -> Any:
        if model._client is None:
            model._client = clients.pop()
        return model._client

    monkeypatch.setattr(model, "_connect", connected)
    assert asyncio.run(model.provider(5)) == "conversation.openai"
    assert model._client is found


def told(model: DaprConversation) -> str:
    """What a call says that fails."""
    with pytest.raises((ModelRefused, ModelUnavailable)) as error:
        asyncio.run(model.ask((Message("user", "hello"),), ()))
    return str(error.value)


def test_an_open_breaker_says_what_it_opened_for_until_a_call_succeeds() -> None:
    status, breaker = f"{PREFIX}API returned unexpected status code: ", f"{PREFIX}circuit breaker is open"
    sidecar = Sidecar(breaker, f"{status}401: key", breaker, breaker, f"{status}500: oh", breaker)
    model = DaprConversation("llm", Daprd("http://127.0.0.1:1", "127.0.0.1:1", ""))
    model._client = cast(Any, sidecar)
    assert told(model) == "model component llm: its circuit breaker is open; it is asked again later"
    assert "the provider refuses the request with status 401: check the key" in told(model)
    for _ in range(2):
        said = "its circuit breaker is open since the provider refuses the request with status 401: check the key in"
        assert said in told(model)
    assert "the provider answers with status 500" in told(model)
    assert "is open since the provider answers with status 500; it is asked again later" in told(model)
    assert asyncio.run(model.ask((Message("user", "hello"),), ())).text == "hello"
    sidecar.failures.append(breaker)
    assert "since" not in told(model)


def test_the_sdk_repeats_no_call_whatever_its_environment_says() -> None:
    assert conversation._NO_RETRY.max_attempts == 0


def test_the_providers_own_words_do_not_travel() -> None:
    error = conversation._translate("llm", f"{PREFIX}the prompt 'I am jane@example.com' is too long")
    assert "jane" not in str(error)


def output(usage: Any, **message: Any) -> SimpleNamespace:
    """A response as the SDK shapes it."""
    parts = {"content": "", "tool_calls": []} | message
    choice = SimpleNamespace(finish_reason="stop", message=SimpleNamespace(**parts))
    return SimpleNamespace(outputs=[SimpleNamespace(choices=[choice], model="m", usage=usage)])


def usage(prompt: int, completion: int, **details: int) -> SimpleNamespace:
    """A usage as the SDK shapes it."""
    return SimpleNamespace(
        prompt_tokens=prompt,
        completion_tokens=completion,
        prompt_tokens_details=SimpleNamespace(cached_tokens=details.get("cached", 0)),
        completion_tokens_details=SimpleNamespace(reasoning_tokens=details.get("reasoning", 0)),
    )


def test_usage_is_taken_as_reported() -> None:
    answer = conversation._answer("llm", output(usage(811, 32, cached=100), content="hello"))
    assert answer.text == "hello"
    assert answer.usage == TokenUsage(input_tokens=811, cached_tokens=100, output_tokens=32, reasoning_tokens=0)
    assert answer.usage.basis is UsageBasis.REPORTED


@pytest.mark.parametrize("nothing", [None, usage(0, 0)])
def test_no_usage_is_unknown_and_never_zero(nothing: Any) -> None:
    answer = conversation._answer("llm", output(nothing, content="hello"))
    assert answer.usage == NOT_REPORTED


@pytest.mark.parametrize(
    "impossible",
    [
        usage(-811, 32),
        usage(811, -32),
        usage(811, 32, cached=-1),
        usage(811, 32, cached=812),
        usage(811, 32, reasoning=33),
        usage(811, 32, reasoning=-1),
    ],
)
def test_a_usage_that_cannot_be_is_not_believed(impossible: Any) -> None:
    assert conversation._answer("llm", output(impossible, content="hello")).usage == NOT_REPORTED


def test_tool_calls_are_taken_over() -> None:
    call = SimpleNamespace(id="1", function=SimpleNamespace(name="lookup_order", arguments="{}"))
    answer = conversation._answer("llm", output(None, tool_calls=[call]))
    assert answer.tool_calls == (ToolRequest("1", "lookup_order", "{}"),)


@pytest.mark.parametrize("empty", [SimpleNamespace(outputs=[]), SimpleNamespace(outputs=[SimpleNamespace(choices=[])])])
def test_an_empty_answer_is_worth_another_try(empty: Any) -> None:
    with pytest.raises(ModelUnavailable, match="empty"):
        conversation._answer("llm", empty)


def test_each_kind_of_message_leaves_in_its_form() -> None:
    call = ToolRequest("c1", "lookup_order", '{"order_id": "AC-1"}')
    sent = [
        conversation._outgoing(message)
        for message in (
            Message("system", "be good"),
            Message("user", "hello"),
            Message("assistant", tool_calls=(call,)),
            Message("tool", "{}", tool_call_id="c1", name="lookup_order"),
        )
    ]
    assert sent[0].of_system.content[0].text == "be good"
    assert sent[1].of_user.content[0].text == "hello"
    assert sent[2].of_assistant.tool_calls[0].function.arguments == call.arguments
    assert sent[3].of_tool.tool_id == "c1"


def test_a_sidecar_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    class Hangs(Sidecar):
        async def converse_alpha2(self, **_: Any) -> Any:
            await asyncio.Event().wait()

    monkeypatch.setattr("app.llm.conversation.GIVE_UP_SECONDS", 0.05)
    model = DaprConversation("llm", Daprd("http://127.0.0.1:1", "127.0.0.1:1", ""))
    model._client = cast(Any, Hangs())
    with pytest.raises(ModelUnavailable, match="the sidecar has not answered for") as error:
        asyncio.run(model.ask((Message("user", "hello"),), ()))
    assert error.value.code == FailureCause.NO_ANSWER_IN_TIME
