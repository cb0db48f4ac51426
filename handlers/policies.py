"""Routing policies: which server of a type a request or a call goes to.

    from handlers import policies

    app.route_by("chat", policies.RoundRobin)
    app.route_by("area", policies.ConsistentHash, replicas=200)
    app.route_by("default", policies.PomeloHash)      # every type that has none of its own

Without one, and without a route function, ``Rendezvous`` decides. A policy is made once for each server and type, so
it may count; what it counts is what this server sends. Those that are not ``sticky`` choose among the servers that
are up; sticky ones keep a bound user at its server while that restarts.
"""

import hashlib
import random
import zlib
from abc import ABC, abstractmethod
from bisect import bisect
from collections import Counter
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, Protocol

from handlers.errors import Unavailable
from handlers.members import rendezvous

__all__ = [
    "Cluster",
    "ConsistentHash",
    "LeastActive",
    "Policies",
    "Policy",
    "PomeloHash",
    "Random",
    "Rendezvous",
    "RoundRobin",
    "WeightedRoundRobin",
    "choose",
    "pomelo_hash",
]

DEFAULT = "default"
"""The type under which a policy or route function is declared for all types without their own, as in pomelo."""


class Cluster(Protocol):
    """What a policy may ask of the server that it decides for."""

    def weight(self, server_id: str) -> int:
        """Return a server's weight, as ``servers.yaml`` says."""

    def in_flight(self, server_id: str) -> int:
        """Return how many requests and calls from here to a server are not answered yet."""


class Policy(ABC):
    """Picks one of several servers. ``sticky``: a bound user's server is kept while it is down."""

    sticky = False

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    @abstractmethod
    def pick(self, key: str, bound: bool, servers: tuple[str, ...]) -> str:
        """Return one of ``servers``, sorted and not empty; ``key`` is the uid, or the session's id if not ``bound``."""


class Rendezvous(Policy):
    """The default: the highest hash of key and server wins, so that few users move when servers come and go."""

    sticky = True

    def pick(self, key: str, bound: bool, servers: tuple[str, ...]) -> str:
        """Return the server that wins the key."""
        return rendezvous(key, servers)


class PomeloHash(Policy):
    """pomelo's ``def``: the uid's crc32 modulo the number of servers; sessions without uid go to the first.

    pomelo counts in the order in which servers joined, which changes with every start; here it is the order of ids,
    chat-2 before chat-10.
    """

    sticky = True

    def pick(self, key: str, bound: bool, servers: tuple[str, ...]) -> str:
        """Return the server at the hash's place."""
        return servers[abs(pomelo_hash(key if bound else "")) % len(servers)]


class ConsistentHash(Policy):
    """A ring of md5 points, ``replicas`` for each server: pomelo's ``ch``, by uid instead of an argument."""

    sticky = True

    def __init__(self, cluster: Cluster, *, replicas: int = 100) -> None:
        super().__init__(cluster)
        self._ring = lru_cache(maxsize=8)(lambda servers: _ring(servers, replicas))

    def pick(self, key: str, bound: bool, servers: tuple[str, ...]) -> str:
        """Return the server of the first point at or after the key's."""
        points, owners = self._ring(servers)
        return owners[bisect(points, _point(key)) % len(owners)]


class Random(Policy):
    """Any server, each time."""

    def pick(self, key: str, bound: bool, servers: tuple[str, ...]) -> str:
        """Return any."""
        return random.choice(servers)


class RoundRobin(Policy):
    """One after the other (pomelo's ``rr``)."""

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(cluster)
        self._next = 0

    def pick(self, key: str, bound: bool, servers: tuple[str, ...]) -> str:
        """Return the next."""
        self._next += 1
        return servers[(self._next - 1) % len(servers)]


class WeightedRoundRobin(Policy):
    """One after the other, in proportion to the field ``weight`` (pomelo's ``wrr``), and evenly mixed as nginx does."""

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(cluster)
        self._credit: Counter[str] = Counter()

    def pick(self, key: str, bound: bool, servers: tuple[str, ...]) -> str:
        """Return the server that has waited longest for its share."""
        credit = self._credit
        for gone in credit.keys() - set(servers):
            del credit[gone]
        total = 0
        for server in servers:
            weight = self._cluster.weight(server)
            credit[server] += weight
            total += weight
        picked = max(servers, key=credit.__getitem__)
        credit[picked] -= total
        return picked


class LeastActive(Policy):
    """The server from which the fewest answers are awaited here; among equals one after the other.

    pomelo's ``la`` never counts down, so a server that came later gets everything. Notifies are not answered, so they
    are not counted.
    """

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(cluster)
        self._turn = 0

    def pick(self, key: str, bound: bool, servers: tuple[str, ...]) -> str:
        """Return the least active."""
        counts = [self._cluster.in_flight(server) for server in servers]
        least = min(counts)
        equals = [server for server, count in zip(servers, counts, strict=True) if count == least]
        self._turn += 1
        return equals[(self._turn - 1) % len(equals)]


class Policies(dict[str, Policy | None]):
    """The policies of one server by server type, made when first asked for; None where none was declared."""

    def __init__(self, declared: Mapping[str, Callable[[Cluster], Policy]], cluster: Cluster) -> None:
        super().__init__()
        self._declared = declared
        self._cluster = cluster

    def __missing__(self, server_type: str) -> Policy | None:
        make = self._declared.get(server_type) or self._declared.get(DEFAULT)
        policy = self[server_type] = make(self._cluster) if make is not None else None
        return policy


def choose(policy: Policy, uid: str | None, spare: Any, servers: tuple[str, ...], up: Callable[[str], bool]) -> str:
    """Return the server that a policy picks for a uid, or for what is known of an unbound session.

    Raises Unavailable when it picks none of the servers.
    """
    bound = uid is not None
    if not (policy.sticky and bound):
        servers = tuple(filter(up, servers)) or servers
    picked = policy.pick(uid if uid is not None else str(spare), bound, servers)
    if picked not in servers:
        raise Unavailable(f"{type(policy).__name__} chose {picked!r}, which is none of the servers")
    return picked


def pomelo_hash(uid: str) -> int:
    """Return pomelo's hash of a uid: the signed crc32 of the low byte of each UTF-16 unit; 0 for an empty one."""
    crc = zlib.crc32(uid.encode("utf-16-le", "surrogatepass")[::2])
    return crc - (1 << 32) if crc >= 1 << 31 else crc


def _ring(servers: tuple[str, ...], replicas: int) -> tuple[list[int], list[str]]:
    points = sorted((_point(f"{server}:{number}"), server) for server in servers for number in range(replicas))
    return [point for point, _ in points], [server for _, server in points]


def _point(text: str) -> int:
    return int.from_bytes(hashlib.md5(text.encode(errors="surrogatepass"), usedforsecurity=False).digest()[:8])
