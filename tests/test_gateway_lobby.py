from __future__ import annotations

from collections import deque

from hypothesis import given
from hypothesis import strategies as st

from gateway.lobby import Lobby


def filled(most: int, *entries: str) -> Lobby[str]:
    lobby: Lobby[str] = Lobby(most)
    for entry in entries:
        assert lobby.enter(entry) is None
    return lobby


def test_whoever_came_first_makes_room_for_one_more() -> None:
    lobby = filled(2, "a", "b")
    assert lobby.enter("c") == "a"
    assert lobby.enter("d") == "b"
    assert [entry in lobby for entry in "abcd"] == [False, False, True, True]
    assert lobby.crowded_out == 2


def test_whoever_got_further_stays_longer() -> None:
    lobby = filled(2, "a", "b")
    lobby.advance("a")
    assert lobby.enter("c") == "b"


def test_whoever_is_through_takes_no_place_and_is_never_dropped() -> None:
    lobby = filled(2, "a", "b")
    lobby.leave("a")
    assert lobby.enter("c") is None
    assert lobby.enter("d") == "b"


def test_leaving_twice_and_advancing_after_leaving_do_nothing() -> None:
    lobby = filled(2, "a")
    lobby.leave("a")
    lobby.leave("a")
    lobby.advance("a")
    assert len(lobby) == 0
    assert lobby.first_out() is None
    assert lobby.crowded_out == 0


def test_a_lobby_for_one_takes_the_newcomer() -> None:
    assert filled(1, "a").enter("b") == "a"


STEPS = st.sampled_from(["enter", "advance", "leave", "first_out"])


@given(st.integers(1, 4), st.lists(st.tuples(STEPS, st.integers(0, 6))))
def test_it_is_a_queue_in_which_advancing_is_leaving_and_coming_again(most: int, steps: list[tuple[str, int]]) -> None:
    lobby: Lobby[int] = Lobby(most)
    queue: deque[int] = deque()
    for step, entry in steps:
        here = entry in queue
        if step == "enter" and not here:
            queue.append(entry)
            assert lobby.enter(entry) == (queue.popleft() if len(queue) > most else None)
        elif step == "first_out":
            assert lobby.first_out() == (queue.popleft() if queue else None)
        elif step != "enter":
            getattr(lobby, step)(entry)
            if here:
                queue.remove(entry)
                if step == "advance":
                    queue.append(entry)
        assert len(lobby) == len(queue)
        assert [other in lobby for other in range(7)] == [other in queue for other in range(7)]
