"""One thing said to several servers: what every push to many has in common."""

import asyncio
from collections.abc import Awaitable, Iterable
from typing import Any

import msgpack

from handlers.errors import PummeloError

__all__ = ["outcomes", "pack_options"]


def pack_options(options: Any) -> tuple[bytes, ...]:
    """Return a push's options as the last field of its entry, none when there are none. Raises TypeError."""
    return () if options is None else (packed(options),)


def packed(value: Any) -> bytes:
    """Return a value as it travels. Raises TypeError for one that cannot."""
    try:
        data: bytes = msgpack.packb(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise TypeError(f"a push's options or parameter cannot travel: {error}") from error
    return data


async def outcomes(asks: Iterable[Awaitable[Any]]) -> list[Any]:
    """Wait for all answers; returns each, or the PummeloError that came instead. Any other exception is raised."""
    answers = await asyncio.gather(*asks, return_exceptions=True)
    for answer in answers:
        if isinstance(answer, BaseException) and not isinstance(answer, PummeloError):
            raise answer
    return answers
