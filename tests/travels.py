"""The game in tests/travelling as it runs on several nodes, and asking its servers where they are."""

import asyncio
import contextlib
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import websockets
import yaml
from nodes import Cluster, RayNode
from pomelo_client import Closed, PomeloClient
from running import ROOT, RunningGame

from handlers import rendezvous

__all__ = ["CHATS", "CONNECTORS", "Travelling", "head_settings", "lay_out", "soon", "uid_of"]

CONNECTORS = ("connector-1", "connector-2", "connector-3")
CHATS = ("chat-1", "chat-2", "chat-3")
GONE = (OSError, Closed, TimeoutError, KeyError, websockets.WebSocketException)
"""What a client gets from a server that is not there, or not there yet."""


def head_settings() -> str:
    """Return the argument by which cluster.yaml gives Ray's own settings to the head."""
    document = yaml.safe_load((ROOT / "cluster.yaml").read_text(encoding="utf-8"))
    words = shlex.split(document["head_start_ray_commands"][-1])
    (setting,) = (word for word in words if word.startswith("--system-config="))
    return setting


@dataclass
class Travelling:
    """The game, on a head and other nodes; ``folder`` is where its files were when it started."""

    cluster: Cluster
    head: RayNode
    game: RunningGame
    others: tuple[RayNode, ...]
    folder: Path

    def node(self, place: dict[str, Any]) -> RayNode:
        """Return the node that a server says it is on."""
        (node,) = (node for node in self.cluster.nodes if node.mark == place["node"])
        return node

    def master(self) -> int:
        """Return the master's process id."""
        lines = [(pid, line) for node in self.cluster.nodes for pid, line in node.processes().items()]
        (pid,) = (pid for pid, line in lines if line.lower().startswith("ray::master"))
        return pid

    async def connectors(self) -> dict[str, str]:
        """Ask the gate where the connectors are."""
        async with PomeloClient(self.game.urls["gate-1"]) as gate:
            found: dict[str, str] = await gate.request("gate.entry.query", timeout=5)
            return found

    async def place(self, server_id: str) -> dict[str, Any]:
        """Ask a chat server, by any connector that works, where it is."""
        for url in (await self.connectors()).values():
            with contextlib.suppress(*GONE):
                async with PomeloClient(url) as client:
                    await client.request("connector.entry.login", {"uid": uid_of(server_id)}, timeout=5)
                    answer: dict[str, Any] = await client.request("chat.room.say", {"text": "where?"}, timeout=5)
                    if answer.get("server") == server_id:
                        return answer
        raise Closed(f"{server_id} cannot be reached")

    async def connector(self, server_id: str) -> dict[str, Any]:
        """Ask a connector where it is."""
        async with PomeloClient((await self.connectors())[server_id]) as client:
            answer: dict[str, Any] = await client.request("connector.entry.show", timeout=5)
            return answer

    def command(self, *words: str) -> str:
        """Run a tool command on the game; returns what it printed."""
        pummelo = str(Path(sys.executable).with_name("pummelo"))
        done = subprocess.run(
            [pummelo, *words, "--address", self.cluster.address, "--name", self.game.name],
            env=os.environ | self.cluster.env,
            check=True,
            capture_output=True,
            text=True,
            timeout=120,
        )
        return done.stdout

    async def everywhere(self) -> dict[str, RayNode]:
        """Return the node of each server but the gate. Raises what a server that does not serve raises."""
        places = {server_id: await self.connector(server_id) for server_id in CONNECTORS}
        places |= {server_id: await self.place(server_id) for server_id in CHATS}
        return {server_id: self.node(place) for server_id, place in places.items()}


def uid_of(server_id: str) -> str:
    """Return a uid whose requests go to a chat server."""
    return next(uid for number in range(1000) if rendezvous(uid := f"user{number}", CHATS) == server_id)


async def soon(ask: Callable[[], Awaitable[Any]], deadline: float) -> Any:
    """Ask until it neither fails nor answers what is false; returns the answer. Raises the last failure."""
    until = time.monotonic() + deadline
    while True:
        try:
            if answer := await ask():
                return answer
            failure: Exception = TimeoutError(f"still {answer!r}")
        except GONE as error:
            failure = error
        if time.monotonic() > until:
            raise failure
        await asyncio.sleep(0.05)


def lay_out(folder: Path) -> None:
    """Write the game's files, with a module that has the name of one of Python's."""
    shutil.copytree(ROOT / "tests" / "travelling", folder)
    # It is the last on the path, here and there.
    (folder / "random.py").write_text("raise ImportError('a game cannot shadow a module of Python')")
