"""What the tests against real servers share: one game for the whole session."""

import signal
from collections.abc import Iterator

import pytest
from running import ROOT, RunningGame

# A shell that runs the tests in the background has them ignore SIGINT, which the programs they interrupt would inherit.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

GAME = ROOT / "tests" / "game" / "servers.yaml"


@pytest.fixture(scope="session")
def game() -> Iterator[RunningGame]:
    """A game that no test harms: two connectors, one with single sessions, two areas."""
    with RunningGame(GAME) as running:
        yield running
