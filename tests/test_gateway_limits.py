from __future__ import annotations

import os
import resource
from pathlib import Path
from typing import Any

import pytest

from gateway import Limits, grow_file_table, raise_open_file_limit


def test_the_defaults_are_the_promised_ones() -> None:
    limits = Limits()
    assert (limits.message_size, limits.outgoing) == (65536, 1 << 20)
    assert (limits.connections, limits.handshakes) == (20_000, 4096)
    assert (limits.handshake_timeout, limits.heartbeat, limits.tick) == (10.0, 30.0, 1.0)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("message_size", 0),
        ("message_size", 1 << 24),
        ("message_size", 1.5),
        ("message_size", True),
        ("handshake_timeout", 0),
        ("handshake_timeout", float("inf")),
        ("heartbeat", -1),
        ("heartbeat", float("nan")),
        ("outgoing", 0),
        ("connections", -5),
        ("handshakes", 0),
    ],
)
def test_a_value_that_cannot_be_meant_is_refused_by_name(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=field):
        Limits(**{field: value})


@pytest.mark.parametrize(
    ("limits", "tick"),
    [
        (Limits(heartbeat=0.2), 0.05),
        (Limits(heartbeat=None, handshake_timeout=0.4), 0.1),
        (Limits(heartbeat=None), 1.0),
        (Limits(heartbeat=0, handshake_timeout=2), 0.5),
    ],
)
def test_the_tick_is_fine_enough_for_the_shortest_deadline(limits: Limits, tick: float) -> None:
    assert limits.tick == pytest.approx(tick)


def test_the_open_file_limit_is_raised_to_the_hard_one() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(256, before[1]), before[1]))
        assert raise_open_file_limit(10) == 10
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == before[1]
        if before[1] != resource.RLIM_INFINITY:
            assert raise_open_file_limit(1 << 40) == before[1] - 200
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_the_file_table_grows_for_the_connections_allowed_and_leaves_no_file_open() -> None:
    open_before = os.listdir("/proc/self/fd")
    grow_file_table(300)
    assert int(_status("FDSize")) >= 500
    assert os.listdir("/proc/self/fd") == open_before


def test_a_file_table_beyond_the_open_file_limit_is_no_error() -> None:
    grow_file_table(1 << 30)


def _status(field: str) -> str:
    return next(
        line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field)
    )
