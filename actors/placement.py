"""Which server goes to which node. Pure.

A choice is a wish: the actor's affinity to its node is soft, so where the node is full or gone by then, and whenever
the node is lost later, Ray starts the server on another one.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from actors.game import ServerSpec

__all__ = ["CannotPlace", "Node", "place", "too_large"]


class CannotPlace(Exception):
    """No node of the cluster is large enough for a server; the message is one line, without the server's id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A living node of the cluster, and how many CPUs it has in all."""

    id: str
    cpus: float


def too_large(specs: Iterable[ServerSpec], nodes: Iterable[Node]) -> dict[str, str]:
    """Return why no node can take a server, by its id, for those for which it is so."""
    nodes = list(nodes)
    refused: dict[str, str] = {}
    for spec in specs:
        try:
            place(spec, nodes, {})
        except CannotPlace as error:
            refused[spec.id] = str(error)
    return refused


def place(spec: ServerSpec, nodes: Iterable[Node], running: Mapping[str, tuple[ServerSpec, str]]) -> str:
    """Return the id of the node for one server.

    It goes where the fewest servers of its type are, so that a lost node takes as few of a type along as can be; among
    these where the fewest servers are, for the CPUs that the node has. Nodes whose CPUs are spoken for come last.

    Args:
        spec: The server.
        nodes: The living nodes, in any order.
        running: The other servers by id, each with its node's id; the server itself, if it is there, does not count.

    Raises:
        CannotPlace: No node has the CPUs that the server asks for.

    """
    nodes = sorted(nodes, key=lambda node: node.id)
    largest = max((node.cpus for node in nodes), default=0.0)
    # A node that offers no CPU, as a head often does, is not for work; a server that asks for none goes elsewhere too.
    large_enough = [node for node in nodes if node.cpus >= spec.num_cpus and (node.cpus or not largest)]
    if not large_enough:
        raise CannotPlace(f"num_cpus {spec.num_cpus:g} is more than any node has ({largest:g})")
    others = [(other, node_id) for server_id, (other, node_id) in running.items() if server_id != spec.id]

    def cost(node: Node) -> tuple[bool, int, float]:
        here = [other for other, node_id in others if node_id == node.id]
        taken = sum(other.num_cpus for other in here)
        same = sum(other.type == spec.type for other in here)
        return taken + spec.num_cpus > node.cpus, same, (len(here) + 1) / (node.cpus or 1.0)

    return min(large_enough, key=cost).id
