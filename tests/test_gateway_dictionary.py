from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_gateway_kit import vectors

from gateway import EncodeError, RouteDictionary

VECTOR = vectors("dictionary.json")


def test_numbers_and_version_are_those_of_the_vector() -> None:
    dictionary = RouteDictionary(reversed(VECTOR["handlers"]), VECTOR["user"])
    assert list(dictionary.mapping.items()) == list(VECTOR["map"].items())
    assert dictionary.version == VECTOR["version"]


def test_the_version_is_the_one_that_pomelo_gives() -> None:
    chat = [f"chat.chatHandler.{name}" for name in ("err", "get", "send", "set")]
    entry = ["bind", "chat", "echo", "empty", "err", "errCode", "kick", "move", "proto", "pushOther", "rpc", "throwit"]
    dictionary = RouteDictionary([*chat, *(f"connector.entryHandler.{name}" for name in entry)], ["onChat", "onKick2"])
    assert len(dictionary) == 18
    assert dictionary.version == "RhANpeLBU9k/3a8B8FOLbA=="


def test_routes_are_sorted_by_utf16_code_unit() -> None:
    # By code point the second would come first: it is U+FF5E, the other U+1F34A, whose first unit is D83C.
    assert list(RouteDictionary(["\uff5e", "\U0001f34a"]).mapping) == ["\U0001f34a", "\uff5e"]


def test_handlers_given_twice_are_numbered_once() -> None:
    assert dict(RouteDictionary(["a", "b", "a"]).mapping) == {"a": 1, "b": 2}


def test_a_repeated_user_route_is_sent_by_its_last_code_and_read_by_all() -> None:
    dictionary = RouteDictionary(["a"], ["a", "onChat", "onChat"])
    assert dictionary.code("a") == 2
    assert dictionary.code("onChat") == 4
    assert [dictionary.route(code) for code in (1, 2, 3, 4)] == ["a", "a", "onChat", "onChat"]


def test_unknown_codes_and_routes_are_none() -> None:
    dictionary = RouteDictionary(["a"])
    assert dictionary.code("b") is None
    assert dictionary.route(0) is None
    assert dictionary.route(2) is None


@given(st.sets(st.text(max_size=20), max_size=30))
def test_every_route_comes_back_from_its_code(routes: set[str]) -> None:
    dictionary = RouteDictionary(routes)
    for route in routes:
        code = dictionary.code(route)
        assert code is not None
        assert dictionary.route(code) == route


def test_more_routes_than_two_bytes_number_are_refused() -> None:
    assert len(RouteDictionary(map(str, range(65535)))) == 65535
    with pytest.raises(EncodeError, match="65536 routes"):
        RouteDictionary(map(str, range(65536)))
