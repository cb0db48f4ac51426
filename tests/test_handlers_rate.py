"""How many messages a session may send: the limit of a frontend, and the bucket under it."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support_handlers import Stage, elapse, virtual

from handlers.rate import Rate, SessionRate, Verdict
from handlers.settings import Settings

OVER = {"code": 429, "message": "too many messages"}


def test_a_burst_passes_at_once_and_then_so_many_a_second() -> None:
    rate = Rate(10, 5)
    assert [rate.admit("a", 0.0) for _ in range(7)] == [True] * 5 + [False] * 2
    assert rate.admit("b", 0.0)
    assert [rate.admit("a", 0.1) for _ in range(2)] == [True, False]
    assert [rate.admit("a", 100.0) for _ in range(6)] == [True] * 5 + [False]


@given(st.floats(0.1, 100), st.integers(1, 20), st.lists(st.floats(0, 2, allow_nan=False), min_size=1, max_size=200))
def test_in_any_stretch_of_time_no_more_pass_than_the_rate_and_one_burst(
    per_second: float, burst: int, pauses: list[float]
) -> None:
    rate, now, passed = Rate(per_second, burst), 0.0, list[float]()
    for pause in pauses:
        now += pause
        if rate.admit("a", now):
            passed.append(now)
    for index, start in enumerate(passed):
        for later in range(index, len(passed)):
            assert later - index + 1 <= burst + (passed[later] - start) * per_second + 1e-3


def test_keys_that_are_quiet_are_forgotten() -> None:
    rate = Rate(1, 1)
    for number in range(100_000):
        rate.admit(number, number / 100)
    assert len(rate) < 1100


@pytest.mark.parametrize(("per_second", "burst"), [(0, 1), (-1, 1), (1, 0)])
def test_a_rate_that_lets_nothing_pass_is_refused(per_second: float, burst: int) -> None:
    with pytest.raises(ValueError, match="a rate is positive and a burst at least 1"):
        Rate(per_second, burst)


def test_a_session_that_goes_on_with_ten_times_its_rate_is_kicked_and_one_that_sends_less_never() -> None:
    rate = SessionRate(10)
    verdicts = [rate.judge(1, 0.0) for _ in range(101)]
    assert verdicts == [Verdict.PASS] * 10 + [Verdict.REFUSE] * 90 + [Verdict.KICK]
    greedy = SessionRate(10)
    assert Verdict.KICK not in {greedy.judge(1, number / 99) for number in range(10_000)}


@virtual
async def test_a_frontend_answers_requests_over_the_rate_429_and_drops_such_notifies() -> None:
    stage = Stage()
    seen: list[int] = []

    @stage.app.handler("chat.t.tell")
    async def tell(msg: int) -> None:
        seen.append(msg)

    async with stage.kit(settings=Settings(rate=2)) as kit:
        ada, bob = await kit.connect("connector-1"), await kit.connect("connector-1")
        assert await ada.request("chat.stage.echo", 1) == 1
        ada.notify("chat.t.tell", 1)
        ada.notify("chat.t.tell", 2)
        assert await ada.request("chat.stage.echo", 2) == OVER
        assert await ada.request("no.such.route") == OVER
        assert await bob.request("chat.stage.echo", 3) == 3
        await elapse(0.5)
        assert await ada.request("chat.stage.echo", 4) == 4
        assert seen == [1]
        assert not ada.closed


@virtual
async def test_a_client_that_floods_is_kicked_with_a_reason_and_nobody_else_notices() -> None:
    stage = Stage()
    async with stage.kit(settings=Settings(rate=5)) as kit:
        flood, calm = await kit.connect("connector-1"), await kit.connect("connector-1")
        for _ in range(200):
            if not flood.closed:
                flood.notify("chat.stage.echo", 1)
        assert flood.kicked == "too many messages"
        assert await calm.request("chat.stage.echo", 1) == 1


@virtual
async def test_without_a_rate_nothing_is_counted() -> None:
    async with Stage().kit() as kit:
        client = await kit.connect("connector-1")
        answers = [client.send_request("connector.stage.echo", n) for n in range(60)]
        assert await asyncio.gather(*answers) == list(range(60))
        frontend = kit.nodes["connector-1"].frontend
        assert frontend is not None
        assert frontend._rate is None


def test_a_negative_rate_is_refused() -> None:
    with pytest.raises(ValueError, match="rate must be a number that is not negative"):
        Settings(rate=-1)
