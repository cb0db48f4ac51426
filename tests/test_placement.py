"""Which server goes to which node."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.game import ServerSpec
from actors.placement import CannotPlace, Node, place, too_large


def servers(server_type: str, count: int, *, frontend: bool = False, num_cpus: float = 0.01) -> list[ServerSpec]:
    return [
        ServerSpec(id=f"{server_type}-{number}", type=server_type, frontend=frontend, num_cpus=num_cpus)
        for number in range(1, count + 1)
    ]


def spread(specs: list[ServerSpec], among: list[Node]) -> dict[str, str]:
    """Return the node of each server, chosen one after the other."""
    placed: dict[str, tuple[ServerSpec, str]] = {}
    for spec in specs:
        placed[spec.id] = (spec, place(spec, among, placed))
    return {server_id: node_id for server_id, (_, node_id) in placed.items()}


def nodes(*cpus: float) -> list[Node]:
    return [Node(id=f"n{number}", cpus=each) for number, each in enumerate(cpus)]


def test_the_servers_of_a_type_are_on_different_nodes_as_far_as_there_are_any() -> None:
    specs = servers("connector", 2, frontend=True) + servers("chat", 3)
    chosen = spread(specs, nodes(4, 4, 4))
    assert chosen["connector-1"] != chosen["connector-2"]
    assert len({chosen[f"chat-{number}"] for number in (1, 2, 3)}) == 3


def test_single_servers_are_spread_too() -> None:
    specs = servers("gate", 1) + servers("connector", 1) + servers("chat", 1)
    chosen = spread(specs, nodes(4, 4, 4))
    assert len(set(chosen.values())) == 3


def test_a_larger_node_takes_more() -> None:
    chosen = spread([spec for n in range(8) for spec in servers(f"type{n}", 1)], nodes(2, 6))
    assert Counter(chosen.values()) == {"n0": 2, "n1": 6}


def test_nodes_with_too_few_cpus_are_skipped() -> None:
    chosen = spread(servers("area", 3, num_cpus=2), nodes(1, 8))
    assert set(chosen.values()) == {"n1"}


def test_a_node_whose_cpus_are_spoken_for_comes_last() -> None:
    chosen = spread(servers("area", 3, num_cpus=2), nodes(2, 4))
    assert Counter(chosen.values()) == {"n0": 1, "n1": 2}


def test_a_head_that_offers_no_cpu_gets_no_server_not_even_one_that_asks_for_none() -> None:
    chosen = spread(servers("chat", 2, num_cpus=0), nodes(0, 4))
    assert set(chosen.values()) == {"n1"}
    alone = spread(servers("chat", 1, num_cpus=0), nodes(0))
    assert alone == {"chat-1": "n0"}


def test_a_server_that_is_too_large_for_every_node_is_told() -> None:
    specs = servers("huge", 1, num_cpus=64) + servers("chat", 1)
    assert too_large(specs, nodes(2, 4)) == {"huge-1": "num_cpus 64 is more than any node has (4)"}


def test_one_more_server_goes_where_its_type_is_rarest() -> None:
    one, two, three = servers("chat", 3)
    running = {"chat-1": (one, "n0"), "chat-2": (two, "n1")}
    assert place(three, nodes(4, 4, 4), running) == "n2"
    # A server that is started anew does not stand in its own way.
    assert place(two, nodes(4, 4), running) == "n1"


def test_no_node_at_all_is_told() -> None:
    with pytest.raises(CannotPlace, match="more than any node has"):
        place(servers("chat", 1)[0], [], {})


@given(st.integers(1, 12), st.lists(st.integers(1, 8), min_size=1, max_size=5))
def test_no_node_has_two_more_of_a_type_than_another_that_has_room(count: int, cpus: list[int]) -> None:
    chosen = spread(servers("chat", count), nodes(*cpus))
    numbers = Counter(chosen.values())
    each = [numbers[node.id] for node in nodes(*cpus)]
    assert max(each) - min(each) <= 1
