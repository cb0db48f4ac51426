"""When servers without an actor are made anew."""

from actors.revival import LONGEST, PAUSE, Revival


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_server_is_due_when_its_pause_is_over_and_not_before() -> None:
    clock = Clock()
    revival = Revival(clock)
    assert revival.gone("chat-1") == PAUSE
    assert revival.due() is None
    clock.now = PAUSE
    assert revival.due() == "chat-1"
    revival.created("chat-1")
    clock.now = 1000.0
    assert revival.due() is None


def test_the_pause_grows_with_each_life_that_does_not_boot_up_to_the_longest() -> None:
    clock = Clock()
    revival = Revival(clock)
    pauses = []
    for _ in range(40):
        pauses.append(revival.gone("chat-1"))
        clock.now += pauses[-1]
        assert revival.due() == "chat-1"
        revival.created("chat-1")
    assert pauses[:4] == [PAUSE, 2 * PAUSE, 4 * PAUSE, 8 * PAUSE]
    assert pauses[-1] == LONGEST


def test_one_of_which_nothing_comes_is_due_again_later_and_keeps_no_other_from_its_turn() -> None:
    clock = Clock()
    revival = Revival(clock)
    revival.gone("chat-1")
    revival.gone("chat-2")
    clock.now = PAUSE
    assert [revival.due(), revival.due(), revival.due()] == ["chat-1", "chat-2", None]
    clock.now = 3 * PAUSE
    assert revival.due() == "chat-1"


def test_one_that_has_booted_begins_with_the_first_pause_again() -> None:
    clock = Clock()
    revival = Revival(clock)
    revival.gone("chat-1")
    clock.now = PAUSE
    revival.due()
    revival.forget("chat-1")
    clock.now = 1000.0
    assert revival.due() is None
    assert revival.gone("chat-1") == PAUSE
