"""A Ray cluster of several nodes on one machine: each a raylet of its own, at an address of its own."""

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from waiting import eventually

__all__ = ["Cluster", "RayNode", "free_port"]

MARK = "PUMMELO_TEST_NODE"
"""The environment variable that tells a node's processes from all others; its workers have it from their raylet."""
START = 60.0
"""Seconds for a node to start."""


class RayNode:
    """One node: a raylet, its agents and workers; the head has Ray's head service as well."""

    def __init__(self, ip: str, folder: Path, mark: str) -> None:
        self.ip = ip
        self.folder = folder
        self.mark = mark

    def processes(self) -> dict[int, str]:
        """Return the command line of each process of the node, by its id."""
        sign = f"{MARK}={self.mark}".encode()
        found: dict[int, str] = {}
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                marked = sign in (entry / "environ").read_bytes().split(b"\0")
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
            except OSError:  # ended meanwhile, or somebody else's
                continue
            if marked and line:  # a zombie has none
                found[int(entry.name)] = line
        return found

    def pid_of(self, program: str) -> int:
        """Return the process id of one of Ray's own programs: raylet or gcs_server."""
        (found,) = (pid for pid, line in self.processes().items() if line.split()[0].endswith(f"/{program}"))
        return found

    def kill(self, program: str) -> None:
        """Kill one of Ray's own programs, and nothing that belongs to it."""
        os.kill(self.pid_of(program), signal.SIGKILL)

    def lose(self) -> None:
        """End the node as a power cut would: every process of it at once."""
        while found := self.processes():
            for pid in found:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue


class Cluster:
    """A head and any number of further nodes, for as long as the context. The first node is the head.

    Each has the address 127.0.0.N and files of its own; whatever is left of them is killed at the end.

    Args:
        head: Further arguments of the head's ``ray start``.
        env: Environment variables of the nodes, besides this process's own.
    """

    def __init__(self, *head: str, env: Mapping[str, str] | None = None) -> None:
        self._head = head
        self.env = {"RAY_AUTH_MODE": "disabled"} | dict(env or {})
        self.nodes: list[RayNode] = []
        self.port = free_port()

    @property
    def address(self) -> str:
        """Where the head service is."""
        return f"127.0.0.2:{self.port}"

    def __enter__(self) -> Self:
        # Short, for Ray's sockets are in it and their paths may have 107 bytes.
        self._folder = Path(tempfile.mkdtemp(prefix="pm-"))
        try:
            self.start_head()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def start_head(self) -> RayNode:
        """Start the head, for the first time or after it was lost, at the same address."""
        return self._start(
            "127.0.0.2",
            "--head",
            f"--port={self.port}",
            "--include-dashboard=false",
            f"--ray-client-server-port={free_port()}",
            f"--dashboard-port={free_port()}",
            *self._head,
        )

    def add(self, env: Mapping[str, str] | None = None) -> RayNode:
        """Start one more node, with environment variables of its own."""
        return self._start(f"127.0.0.{len(self.nodes) + 2}", f"--address={self.address}", env=env)

    def close(self) -> None:
        """End every process of the cluster, and remove its files."""
        for node in self.nodes:
            node.lose()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _start(self, ip: str, *arguments: str, env: Mapping[str, str] | None = None) -> RayNode:
        number = len(self.nodes)
        node = RayNode(ip, self._folder / str(number), uuid.uuid4().hex)
        node.folder.mkdir()
        self.nodes.append(node)
        ray = str(Path(sys.executable).with_name("ray"))
        own = [f"--node-ip-address={ip}", f"--temp-dir={node.folder}", "--num-cpus=1", "--object-store-memory=80000000"]
        own.append(f"--dashboard-agent-listen-port={free_port()}")
        done = subprocess.run(
            [ray, "start", *own, "--disable-usage-stats", *arguments],
            env=os.environ | self.env | dict(env or {}) | {MARK: node.mark},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=START,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"the node {ip} did not start:\n{done.stdout}\n{done.stderr}")
        eventually(lambda: any("raylet" in line for line in node.processes().values()))
        return node


def free_port() -> int:
    """Return a port that is free at every address, below those that outgoing connections take."""
    while True:
        port = random.randrange(20_000, 30_000)
        with contextlib.suppress(OSError), socket.socket() as free:
            free.bind(("", port))
            return port
