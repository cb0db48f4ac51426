"""The way to a peer by Ray, where Ray itself fails in a manner that is not its usual one."""

import asyncio
from types import SimpleNamespace

import pytest
from ray.exceptions import RayError

from actors.carrier import Handles
from actors.way import CallFailed


@pytest.mark.parametrize(("raised", "expected"), [(OSError("no room"), OSError), (RayError("gone"), CallFailed)])
def test_a_call_that_cannot_even_be_made_comes_back_as_failed(raised: Exception, expected: type[Exception]) -> None:
    def remote(carrier: bytes) -> None:
        raise raised

    async def scenario() -> bytes | BaseException:
        handles = Handles()
        handles.replace({"b": SimpleNamespace(carry=SimpleNamespace(remote=remote))})
        came: asyncio.Future[bytes | BaseException] = asyncio.get_running_loop().create_future()
        handles.connect("b").call(b"x", came.set_result)
        assert not came.done()
        return await came

    assert isinstance(asyncio.run(scenario()), expected)


def test_a_call_of_a_peer_that_nobody_knows_comes_back_as_failed() -> None:
    async def scenario() -> bytes | BaseException:
        came: asyncio.Future[bytes | BaseException] = asyncio.get_running_loop().create_future()
        Handles().connect("b").call(b"x", came.set_result)
        return await came

    assert isinstance(asyncio.run(scenario()), CallFailed)
