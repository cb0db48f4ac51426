"""Order over real links: what one session asks, and what one server says."""

import asyncio
import time

import pytest
from pomelo_client import PomeloClient
from running import RunningGame

pytestmark = pytest.mark.real


def test_two_hundred_requests_of_random_duration_are_answered_in_order(game: RunningGame) -> None:
    async def scenario() -> list[int]:
        async with PomeloClient(game.urls["connector-1"]) as client:
            await client.request("connector.entry.login", {"uid": "orderly"})
            order: list[int] = []
            # No more than may wait for an earlier one (64).
            for start in range(0, 200, 50):
                answers = [
                    await client.send_request("area.test.random", {"number": number})
                    for number in range(start, start + 50)
                ]
                for answer in answers:
                    answer.add_done_callback(lambda answer: order.append(answer.result()["number"]))
                await asyncio.gather(*answers)
            return order

    assert asyncio.run(scenario()) == list(range(200))


def test_concurrent_requests_of_one_session_overlap(game: RunningGame) -> None:
    async def scenario() -> float:
        async with PomeloClient(game.urls["connector-1"]) as client:
            start = time.monotonic()
            naps = [
                await client.send_request("area.test.nap", {"number": number, "seconds": 0.5}) for number in range(20)
            ]
            await asyncio.gather(*naps)
            return time.monotonic() - start

    assert 0.5 <= asyncio.run(scenario()) < 5


def test_a_slow_request_holds_up_its_own_session_alone(game: RunningGame) -> None:
    async def scenario() -> None:
        async with PomeloClient(game.urls["connector-1"]) as slow, PomeloClient(game.urls["connector-1"]) as quick:
            waiting = await slow.send_request("area.test.sleep", {"number": 1, "seconds": 1.5})
            behind = await slow.send_request("area.test.echo", {})
            for number in range(20):
                assert await quick.request("area.test.sleep", {"number": number}) == {"number": number}
            assert not waiting.done()
            assert not behind.done()
            assert await waiting == {"number": 1}
            assert "body" in await behind

    asyncio.run(scenario())


def test_five_hundred_pushes_and_answers_over_one_link_arrive_in_the_order_they_were_made(game: RunningGame) -> None:
    """Calls carry one part of them and returns the other; a return that overtakes a call would show here."""

    async def scenario() -> None:
        async with PomeloClient(game.urls["connector-1"]) as client:
            await client.request("connector.entry.login", {"uid": "counter"})
            await client.request("area.room.join", {"room": "count"})
            answers = [await client.send_request("area.room.count", {"number": number}) for number in range(500)]
            await asyncio.gather(*answers)
            numbers = [body["number"] for route, body in client.pushes if route == "onNumber"]
            assert numbers == list(range(500))

    asyncio.run(scenario())
