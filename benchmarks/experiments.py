"""What no comparison with a peer shows: idle clients, slow ones, slow handlers, many backends. pummelo alone.

    python benchmarks/experiments.py [--rounds 5] [--only NAME] [--json FILE]

Each experiment runs the game of benchmarks/servers.yaml afresh; figures are medians of the rounds.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from subjects import HERE, Pummelo

Figures = dict[str, float]
Experiment = Callable[["Bench"], Figures]
EXPERIMENTS: dict[str, Experiment] = {}

CLIENTS = 10_000
IDLE = 60.0
"""Seconds in which idle clients are watched: two of their heartbeats."""
SECONDS = 5.0
BACKENDS = (1, 4, 16)
SERVING = ("ray::", "raylet", "gcs_server")
"""How the names of the processes begin that serve a Ray application: actors and agents, and Ray's own two servers. The
others are the one that started it, and Ray's for logs, the dashboard and the autoscaler."""


class Bench:
    """Starts games and puts load on them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @contextmanager
    def game(self, *changes: str) -> Iterator[Pummelo]:
        """Run the game, with values of its file changed."""
        with Pummelo(self._folder, *changes) as subject:
            yield subject

    def load(self, subject: Pummelo, *arguments: object, port: int | None = None) -> dict[str, Any]:
        """Put a load on the game to its end; returns what load.c measured. ``port`` 13110 by default."""
        done = self.loading(subject, *arguments, port=port).communicate(timeout=300)[0]
        if not done:
            raise RuntimeError(f"load {arguments} failed")
        result: dict[str, Any] = json.loads(done)
        return result

    def loading(self, subject: Pummelo, *arguments: object, port: int | None = None) -> "subprocess.Popen[str]":
        """Start a load beside others."""
        pids = ",".join(map(str, subject.pids()))
        command = [str(self._folder / "load"), str(port or subject.port), *map(str, arguments), f"pids={pids}"]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def experiment(function: Experiment) -> Experiment:
    """Declare an experiment under its name."""
    EXPERIMENTS[function.__name__.replace("_", " ")] = function
    return function


@experiment
def idle_clients(bench: Bench) -> Figures:
    """10,000 clients with heartbeats of 30 s on one frontend: memory of each, and the CPU of the game.

    Of the whole game, of those of its processes that serve, and of the frontend alone.
    """
    with bench.game() as subject:
        before = bench.load(subject, "idle", 1, 1, IDLE, "noenter=1")
        beside = bench.load(subject, "idle", CLIENTS, 1, IDLE)
        serving, frontend = subject.named(*SERVING), subject.named("ray::FrontendServer")
    return {
        "KiB a client": beside["rss_kb_per_conn"],
        "percent of a core": _of_a_core(beside),
        "percent of a core without them": _of_a_core(before),
        "percent of a core, of what serves": _of_a_core(beside, serving),
        "percent of a core, of the frontend": _of_a_core(beside, frontend),
    }


@experiment
def slow_handler(bench: Bench) -> Figures:
    """2,000 quick requests a second of 100 clients, with and without 50 clients whose handler takes 2 s each time."""
    quick = ("rate", 100, 1, SECONDS, "rate=2000")
    with bench.game() as subject:
        bench.load(subject, *quick)
        alone = bench.load(subject, *quick)
        slow = bench.loading(subject, "echo", 50, 1, SECONDS + 4, "route=chat.chatHandler.slow", "noenter=1")
        beside = bench.load(subject, *quick)
        slow.communicate()
    return _compared(alone, beside)


@experiment
def slow_consumer(bench: Bench) -> Figures:
    """Pushes to a room of 1,000, with and without one member that does not read: it is closed, the others go on."""
    with bench.game() as subject:
        # 8 KB each, for the kernel keeps megabytes to send to a client before anything waits in the server.
        chat = ("chat", 1000, 4, 2 * SECONDS, "room=1000", "body=8000")
        bench.load(subject, *chat)
        alone = bench.load(subject, *chat)
        beside = bench.load(subject, *chat, "stall=1")
    figures = _compared(alone, beside)
    return figures | {
        "closed": beside["stalled_closed"],
        "MiB of the game without": alone["rss_mb"],
        "MiB of the game with": beside["rss_mb"],
    }


@experiment
def many_backends(bench: Bench) -> Figures:
    """The same load, 100 clients with 10 requests in flight, dealt to 1, 4 and 16 backends: CPU for a request."""
    costs: Figures = {}
    for count in BACKENDS:
        with bench.game(f"chat.count={count}") as subject:
            echo = ("echo", 100, 10, SECONDS)
            bench.load(subject, *echo)
            result = bench.load(subject, *echo)
        costs[f"CPU us, {count} backends"] = result["cpu_us_per_op"]
        costs[f"per second, {count} backends"] = result["ops_per_s"]
    few, many = (costs[f"CPU us, {count} backends"] for count in (BACKENDS[0], BACKENDS[-1]))
    return costs | {"ratio of CPU": many / few}


def _of_a_core(result: dict[str, Any], pids: list[int] | None = None) -> float:
    """Return the percentage of a core that these processes took, of those watched by the load; by default all."""
    seconds = result["cpu_s_of_pids"]
    watched = seconds.values() if pids is None else (seconds.get(str(pid), 0) for pid in pids)
    return float(100 * sum(watched) / result["secs"])


def _compared(alone: dict[str, Any], beside: dict[str, Any]) -> Figures:
    return {
        "p99 ms without": alone["p99_ms"],
        "p99 ms with": beside["p99_ms"],
        "ratio of p99": beside["p99_ms"] / alone["p99_ms"],
    }


def main() -> int:
    """Measure and print; returns 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=1, help="of each experiment, of which the median counts")
    parser.add_argument("--only", default="", help="experiments whose name holds this")
    parser.add_argument("--json", type=Path, help="a file for all figures")
    options = parser.parse_args()
    told: dict[str, list[Figures]] = {}
    with tempfile.TemporaryDirectory(prefix="pm-") as name:
        folder = Path(name)
        subprocess.run(["cc", "-O2", "-o", folder / "load", HERE / "load.c"], check=True)
        for title, function in EXPERIMENTS.items():
            if options.only not in title:
                continue
            rounds = told[title] = [function(Bench(folder)) for _ in range(options.rounds)]
            print(f"{title}: {function.__doc__}")
            for key in rounds[0]:
                print(f"  {key}: {statistics.median(one[key] for one in rounds):,.2f}", flush=True)
    if options.json:
        options.json.write_text(json.dumps(told, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
