"""What is measured: the project's own game, and the peer's, each a set of processes behind a port."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from actors.affinity import only_cpu

HERE = Path(__file__).resolve().parent
START = 60.0
"""Seconds for a subject to serve."""
END = 10.0
"""Seconds for its killed processes to be gone."""
CPUS = {"connector": 0, "chat": 1}
"""The CPU of each server, where each is to have one of its own."""


class Subject(ABC):
    """A server under test: started on entering, its processes gone on leaving."""

    name: str
    port: int

    def __init__(self, command: list[str], *, folder: Path, environment: dict[str, str] | None = None) -> None:
        self._command = command
        self._folder = folder
        self._environment = os.environ | (environment or {})

    def __enter__(self) -> Self:
        self.log = (self._folder / f"{self.name}.log").open("w")
        self._process = subprocess.Popen(
            self._command, cwd=self._folder, env=self._environment, stdout=self.log, stderr=subprocess.STDOUT
        )
        self._wait()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        left = self.pids()
        self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for pid in left:
            _kill(pid)
        # The next subject may have the same ports: it is not to be taken for serving while these still listen.
        until = time.monotonic() + END
        while running := [pid for pid in left if _runs(pid)]:
            if time.monotonic() > until:
                raise RuntimeError(f"{self.name}: the processes {running} have been killed and still run")
            time.sleep(0.05)
        self.log.close()

    def wait_bound(self) -> None:
        """Return when each of its servers is on its CPU. Raises RuntimeError if that does not happen."""
        until = time.monotonic() + END
        while (found := sorted(cpu for cpu in map(only_cpu, self.pids()) if cpu is not None)) != sorted(CPUS.values()):
            if time.monotonic() > until:
                raise RuntimeError(f"{self.name}: its servers should be on the CPUs {CPUS}, and are on {found}")
            time.sleep(0.1)

    def pids(self) -> list[int]:
        """Return the ids of all of the subject's processes."""
        return [self._process.pid, *descendants(self._process.pid)]

    @abstractmethod
    def serves(self) -> bool:
        """Whether it takes load now."""

    def _wait(self) -> None:
        until = time.monotonic() + START
        while not self.serves():
            if time.monotonic() > until or self._process.poll() is not None:
                raise RuntimeError(f"{self.name} does not serve; see {self.log.name}")
            time.sleep(0.1)


class Pummelo(Subject):
    """The project's game of benchmarks/servers.yaml."""

    port = 13110

    def __init__(self, folder: Path, *changes: str, name: str = "pummelo") -> None:
        self.name = name
        sets = [part for change in changes for part in ("--set", change)]
        pummelo = str(Path(sys.executable).with_name("pummelo"))
        file = str(HERE / "servers.yaml")
        super().__init__([pummelo, "run", file, "--log-level", "warning", *sets], folder=folder)

    def named(self, *names: str) -> list[int]:
        """Return the ids of its processes whose names begin with one of these."""
        return [pid for pid in self.pids() if _name(pid).startswith(names)]

    def serves(self) -> bool:
        """Whether it said that it is ready."""
        return "\nready\n" in Path(self.log.name).read_text(errors="replace")


class Pomelo(Subject):
    """The peer, pomelo 2.2.7 from npm; ``nodelay`` turns Nagle's algorithm off on all its sockets.

    ``bound`` has its configuration name a CPU for each server.
    """

    port = 13010

    def __init__(self, folder: Path, *, nodelay: bool, bound: bool = False) -> None:
        self.name = "pomelo, no-delay" if nodelay else "pomelo as shipped"
        preload = {"NODE_OPTIONS": f"--require {folder / 'nodelay.js'}"} if nodelay else {}
        super().__init__(["node", "app.js", "env=development", "type=all"], folder=folder, environment=preload)
        if bound:
            self._bind(folder / "config" / "servers.json")

    @staticmethod
    def _bind(file: Path) -> None:
        game = json.loads(file.read_text())
        for server_type, servers in game["development"].items():
            for server in servers:
                server["cpu"] = str(CPUS[server_type])
        file.write_text(json.dumps(game))

    @classmethod
    def install(cls, folder: Path) -> Path | None:
        """Put the peer into a folder; returns it, or None where there is no Node or no npm registry."""
        if not (shutil.which("node") and shutil.which("npm")):
            return None
        target = folder / "peer"
        shutil.copytree(HERE / "peer", target, dirs_exist_ok=True)
        done = subprocess.run(
            ["npm", "install", "--ignore-scripts", "--silent", "--no-audit", "--no-fund"],
            cwd=target,
            capture_output=True,
            check=False,
        )
        return target if done.returncode == 0 else None

    def serves(self) -> bool:
        """Whether both of its servers listen."""
        listening = subprocess.run(["ss", "-ltn"], capture_output=True, text=True, check=True).stdout
        return ":13010 " in listening and ":16050 " in listening


def descendants(pid: int) -> list[int]:
    """Return the ids of all processes below one."""
    children: dict[int, list[int]] = {}
    for child, parent in _parents():
        children.setdefault(parent, []).append(child)
    found, waiting = [], [pid]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += below
    return found


def _parents() -> Iterator[tuple[int, int]]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text()
            except OSError:  # ended meanwhile
                continue
            yield int(entry.name), int(stat.rpartition(")")[2].split()[1])


def _name(pid: int) -> str:
    try:
        return Path(Path(f"/proc/{pid}/cmdline").read_text().partition("\0")[0]).name
    except OSError:  # ended meanwhile
        return ""


def _runs(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    # The first of its threads may be gone while others still hold its sockets.
    return stat.rpartition(")")[2].split()[0] != "Z" or _threads(pid) > 1


def _threads(pid: int) -> int:
    try:
        return len(os.listdir(f"/proc/{pid}/task"))
    except OSError:
        return 0


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
