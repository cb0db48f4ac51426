"""Finding the one game that a tool command means, among all that run."""

import contextlib
import os
import subprocess
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from actors.cluster import ClusterError, probe, ray_cluster
from actors.operator import Operator
from actors.probe import PREFIX, games_at, send_token

__all__ = ["addresses_in", "local_clusters", "operating"]

_OPTION = "--gcs-address="
PROC = Path("/proc")


@contextlib.contextmanager
def operating(address: str | None = None, name: str | None = None) -> Iterator[Operator]:
    """Join the cluster of a running game for as long as the context; yields the game's operator.

    Without an address it is looked for at ``RAY_ADDRESS`` or, where that is not set or is ``auto``, on all clusters
    that have a node on this machine, those that ``pummelo run`` started for a game too. Without a name there has to
    be exactly one game. Raises ClusterError, which lists what was found.
    """
    address = address or os.environ.get("RAY_ADDRESS") or "auto"
    # Else Ray would take it for the address of every cluster.
    os.environ.pop("RAY_ADDRESS", None)
    if address != "auto":
        probe(address)
    addresses = local_clusters() if address == "auto" else [address]
    if not addresses:
        raise ClusterError("no Ray cluster has a node on this machine: name one with --address host:port")
    send_token()
    with ThreadPoolExecutor(len(addresses)) as pool:
        games = dict(zip(addresses, pool.map(games_at, addresses), strict=True))
    if address != "auto" and games[address] is None:
        raise ClusterError(f"no Ray cluster at {address}")
    found = [(one, game) for one, names in games.items() for game in names or ()]
    at, game = _chosen(found, addresses, name)
    with ray_cluster(at, PREFIX, logs=False, checked=True):
        yield Operator.of(game)


def local_clusters() -> list[str]:
    """Return the addresses of all Ray clusters that have a node on this machine."""
    return addresses_in(_command_lines())


def addresses_in(command_lines: Iterable[list[str]]) -> list[str]:
    """Return the clusters' addresses that the nodes' daemons among these processes were started with, sorted."""
    return sorted(
        {
            argument.removeprefix(_OPTION)
            for line in command_lines
            if line and line[0].rpartition("/")[2] == "raylet"
            for argument in line
            if argument.startswith(_OPTION)
        }
    )


def _command_lines() -> Iterator[list[str]]:
    if not PROC.is_dir():
        done = subprocess.run(["ps", "-axww", "-o", "args="], capture_output=True, text=True, check=False)
        yield from (line.split() for line in done.stdout.splitlines())
        return
    for entry in PROC.glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # ended meanwhile
            yield entry.read_bytes().decode(errors="replace").split("\0")


def _chosen(found: list[tuple[str, str]], addresses: list[str], name: str | None) -> tuple[str, str]:
    fitting = [(address, game) for address, game in found if name in (None, game)]
    if len(fitting) == 1:
        return fitting[0]
    where = ", ".join(addresses)
    if not found:
        raise ClusterError(f"no game runs at {where}")
    lines = [f"  {game} at {address}" for address, game in fitting or found]
    if not fitting:
        raise ClusterError("\n".join([f"no game {name!r} runs at {where}; there are", *lines]))
    raise ClusterError("\n".join(["several games run; choose one with --name or --address:", *lines]))
