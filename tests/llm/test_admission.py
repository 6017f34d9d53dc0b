"""The queue before a component: ordered, fair between tenants, slower after a 429, and left by calls that wait long."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.errors import FailureCause, ModelBusy, ModelUnavailable
from app.llm.admission import Admission
from app.llm.call import LimitReached, ModelCall
from app.llm.conversation import Message


def call(task: str, tenant: str = "acme") -> ModelCall:
    """A task's first call."""
    return ModelCall(tenant, task, "classify", 1, f"e-{task}", "p1", (Message("user", "hi"),))


class Component:
    """One that admits `most` calls at a time and notes who was admitted."""

    def __init__(self, most: int = 1, *, may_pause: bool = True) -> None:
        self.most = most
        self.running = 0
        self.highest = 0
        self.order: list[str] = []
        self._may_pause = may_pause

    def begin(self, name: str) -> Callable[[bool], Awaitable[str | LimitReached]]:
        """What a call's `begin` does."""

        async def begin(has_turn: bool) -> str | LimitReached:
            if not has_turn or self.running >= self.most:
                return LimitReached(self._may_pause)
            self.running += 1
            self.highest = max(self.highest, self.running)
            self.order.append(name)
            return name

        return begin


async def work(queue: Admission, component: Component, asked: ModelCall) -> None:
    """One call from its arrival to its end."""
    await queue.enter(asked, component.begin(asked.task_id))
    await asyncio.sleep(0)
    component.running -= 1
    queue.leave()


def clock() -> float:
    """The event loop's."""
    return asyncio.get_running_loop().time()


def served(calls: list[ModelCall], component: Component) -> list[str]:
    """The order in which calls that arrive one after the other are admitted."""

    async def main() -> list[str]:
        queue = Admission("llm", 60, clock)
        async with asyncio.timeout(30):
            await asyncio.gather(*(work(queue, component, asked) for asked in calls))
        return component.order

    return asyncio.run(main())


def test_calls_go_in_the_order_of_their_arrival() -> None:
    names = [f"T-{number}" for number in range(20)]
    component = Component()
    assert served([call(name) for name in names], component) == names
    assert component.highest == 1


def test_a_tenant_with_few_calls_does_not_wait_for_one_with_many() -> None:
    many = [call(f"a-{number}", "acme") for number in range(10)]
    order = served([*many, call("b-0", "brightly"), call("b-1", "brightly")], Component())
    assert order[:5] == ["a-0", "a-1", "b-0", "a-2", "b-1"]


@given(
    st.lists(st.tuples(st.sampled_from(["a", "b", "c"]), st.integers(0, 10**6)), max_size=30, unique=True),
    st.integers(1, 5),
)
def test_everybody_is_served_once_in_order_and_within_the_limit(asked: list[tuple[str, int]], most: int) -> None:
    calls = [call(f"{tenant}-{number}", tenant) for tenant, number in asked]
    component = Component(most)
    order = served(calls, component)
    assert sorted(order) == sorted(one.task_id for one in calls)
    for tenant in "abc":
        theirs = [name for name in order if name.startswith(tenant)]
        assert theirs == [one.task_id for one in calls if one.tenant == tenant]
    assert component.highest <= most


def test_a_call_that_waits_too_long_leaves_and_keeps_its_place() -> None:
    async def main() -> list[str]:
        queue, component = Admission("llm", 0.2, clock), Component()
        await queue.enter(call("first"), component.begin("first"))
        with pytest.raises(ModelBusy) as busy:
            await queue.enter(call("early"), component.begin("early"))
        assert busy.value.seconds >= 1
        later = asyncio.ensure_future(work(queue, component, call("later")))
        await asyncio.sleep(0)
        again = asyncio.ensure_future(work(queue, component, call("early")))
        await asyncio.sleep(0)
        component.running -= 1
        queue.leave()
        await asyncio.gather(later, again)
        return component.order

    # "later" had the turn already when "early" came back; nobody else may overtake it.
    assert asyncio.run(main()) in (["first", "early", "later"], ["first", "later", "early"])


def test_a_step_that_has_asked_before_does_not_leave() -> None:
    async def main() -> str:
        queue, component = Admission("llm", 0.05, clock), Component(may_pause=False)
        await queue.enter(call("first"), component.begin("first"))
        waiting = asyncio.ensure_future(queue.enter(call("second"), component.begin("second")))
        done, _ = await asyncio.wait([waiting], timeout=0.5)
        assert not done, "it would come back as a new step, and its lost answers would be forgotten"
        component.running -= 1
        queue.leave()
        return await waiting

    assert asyncio.run(main()) == "second"


def test_a_long_queue_is_left_at_once() -> None:
    async def main() -> None:
        queue, component = Admission("llm", 1.0, clock), Component()

        async def slow(name: str) -> None:
            await queue.enter(call(name), component.begin(name))
            await asyncio.sleep(0.3)
            component.running -= 1
            queue.leave()

        running = [asyncio.ensure_future(slow(f"T-{number}")) for number in range(4)]
        await asyncio.sleep(0.75)  # the pace is known: one in 0.3 s
        more = [asyncio.ensure_future(slow(f"U-{number}")) for number in range(10)]
        await asyncio.sleep(0.1)
        left = [one for one in more if one.done() and isinstance(one.exception(), ModelBusy)]
        assert 5 <= len(left) <= 9, "who would wait longer than a second leaves at once, the others stay"
        await asyncio.gather(*running, *more, return_exceptions=True)

    asyncio.run(main())


RATE_LIMIT = ModelUnavailable("slow down", cause=FailureCause.RATE_LIMIT)


def test_a_429_pauses_the_component_and_narrows_it() -> None:
    async def main() -> None:
        now = 100.0
        queue, component = Admission("llm", 60, lambda: now), Component(1000)
        for number in range(8):
            await queue.enter(call(f"T-{number}"), component.begin(f"T-{number}"))
        queue.leave(RATE_LIMIT)
        waiting = [asyncio.ensure_future(queue.enter(call(f"U-{n}"), component.begin(f"U-{n}"))) for n in range(8)]
        await asyncio.sleep(0.3)
        assert component.order[8:] == [], "nothing goes out during the pause"
        now += 1.0
        await asyncio.sleep(0.3)
        assert component.order[8:] == [], "seven are under way, and four are allowed"
        for _ in range(7):
            queue.leave()
        await asyncio.sleep(0.5)
        assert len(component.order) > 12, "each answer widens it again"
        for one in waiting:
            one.cancel()

    asyncio.run(main())


def test_the_provider_says_how_long_the_pause_is() -> None:
    async def main() -> None:
        now = 0.0
        queue, component = Admission("llm", 60, lambda: now), Component(1000)
        asked = ModelUnavailable("slow down", cause=FailureCause.RATE_LIMIT)
        asked.retry_after = 20.0
        await queue.enter(call("T-1"), component.begin("T-1"))
        queue.leave(asked)
        waiting = asyncio.ensure_future(queue.enter(call("T-2"), component.begin("T-2")))
        now = 19.0
        await asyncio.sleep(0.3)
        assert not waiting.done()
        now = 20.0
        assert await waiting == "T-2"

    asyncio.run(main())


def test_a_window_that_opens_once_a_minute_does_not_make_pauses_of_many_minutes() -> None:
    async def main() -> list[float]:
        now, admitted = 0.0, list[float]()
        pauses: list[float] = []
        queue = Admission("llm", 20, lambda: now)

        async def begin(has_turn: bool) -> str | LimitReached:
            if not has_turn or sum(at > now - 61 for at in admitted) >= 60:
                return LimitReached(may_pause=True)
            admitted.append(now)
            return "begun"

        async def one(number: int) -> None:
            try:
                await queue.enter(call(f"T-{number}"), begin)
                queue.leave()
            except ModelBusy as busy:
                pauses.append(busy.seconds)

        calls = [asyncio.ensure_future(one(number)) for number in range(60)]
        await asyncio.gather(*calls)
        for now in (50.0, 62.0):  # the second window opens while these wait
            calls += [asyncio.ensure_future(one(100 + int(now) + number)) for number in range(80)]
            await asyncio.sleep(0.3)
        await asyncio.sleep(0.5)
        now = 83.0
        await asyncio.gather(*calls)
        return pauses

    pauses = asyncio.run(main())
    assert pauses
    assert max(pauses) < 60
