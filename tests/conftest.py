"""What the tests against real servers share: one game for the whole session."""

from collections.abc import Iterator

import pytest
from running import ROOT, RunningGame

GAME = ROOT / "tests" / "game" / "servers.yaml"


@pytest.fixture(scope="session")
def game() -> Iterator[RunningGame]:
    """A game that no test harms: two connectors, one with single sessions, two areas."""
    with RunningGame(GAME) as running:
        yield running
