"""``make bench``: the same load on pummelo and on pomelo, interleaved in one run, as a table and as JSON.

The load comes from ``load.c``; what it took of the CPU itself is in the column "load". CPU and memory are those of all
of a subject's processes, Ray's own included.
"""

import argparse
import contextlib
import json
import os
import platform
import statistics
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from subjects import CPUS, HERE, Pomelo, Pummelo, Subject

from actors.build import build

Result = dict[str, Any]


@dataclass(frozen=True)
class Load:
    """One load: the arguments of load.c, and what is wanted of the ratios to pomelo with no-delay.

    ``room``: how many members a room that is pushed to has.
    """

    name: str
    mode: str
    connections: int
    window: int
    keys: tuple[str, ...] = ()
    room: int = 0
    rate: str = "ops_per_s"
    at_least: float = 0.0
    cost: str = "cpu_us_per_op"
    cost_at_most: float | None = None
    p50_at_most: float | None = None


LOADS = (
    Load("routed echo, 100 x 10", "echo", 100, 10, at_least=3.5, cost_at_most=0.3),
    Load("routed echo, 1000 x 1", "echo", 1000, 1, at_least=2.5),
    Load("routed echo, 100 x 1", "echo", 100, 1, at_least=2, p50_at_most=0.5),
    Load("routed echo, 1 x 1", "echo", 1, 1),
    Load("frontend echo, 100 x 10", "echo", 100, 10, ("route=connector.entryHandler.echo",), at_least=3),
    *(
        Load(
            f"pushes, {count} of {room}, window {window}",
            "chat",
            count * room,
            window,
            room=room,
            rate="pushes_per_s",
            at_least=least,
            cost="cpu_us_per_push",
            cost_at_most=most,
        )
        for count, room, window, least, most in (
            (1, 1000, 4, 6, 0.2),
            (10, 100, 4, 4, None),
            (10, 10, 4, 1.3, None),
            (1, 1000, 16, 12, None),
        )
    ),
    Load("new connections", "idle", 2000, 1, rate="connect_per_s", at_least=1.2),
)


def main() -> int:
    """Measure, print, and return 0; a missed target is told in the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=1, help="measurements of each, of which the median counts")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement")
    parser.add_argument("--only", default="", help="loads whose name holds this")
    parser.add_argument("--bound", action="store_true", help="a CPU for each server, pomelo's too (Linux, two CPUs)")
    parser.add_argument("--json", type=Path, help="a file for all results")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        subprocess.run(["cc", "-O2", "-o", folder / "load", HERE / "load.c"], check=True)
        results, bare = measure(folder, options)
    report(results, bare, options)
    return 0


def measure(folder: Path, options: argparse.Namespace) -> tuple[dict[str, dict[str, list[Result]]], list[Result]]:
    """Return the results by load and subject, a list of rounds each, and the bare call's."""
    loads = [load for load in LOADS if options.only in load.name]
    results: dict[str, dict[str, list[Result]]] = {load.name: {} for load in loads}
    bare: list[Result] = []
    peer = Pomelo.install(folder)
    if peer is None:
        print("pomelo is not measured: there is no Node, or npm gave no package", file=sys.stderr)
    for round_number in range(options.rounds):
        # One subject runs at a time: pomelo's two would want the same ports, and an idle Ray is not quite idle.
        for subject in subjects(folder, peer, bound=options.bound):
            with subject:
                if options.bound:
                    subject.wait_bound()
                for load in loads:
                    print(f"round {round_number + 1}: {subject.name}: {load.name}", file=sys.stderr)
                    result = run(folder, subject, load, options.seconds)
                    results[load.name].setdefault(subject.name, []).append(result)
        bare.append(bare_call())
    return results, bare


def subjects(folder: Path, peer: Path | None, *, bound: bool) -> list[Subject]:
    """Return what is measured in one round."""
    changes = [f"{server_type}.cpu={cpu}" for server_type, cpu in CPUS.items()] if bound else []
    peers = [] if peer is None else [Pomelo(peer, nodelay=nodelay, bound=bound) for nodelay in (True, False)]
    return [Pummelo(folder, *changes), *peers]


def run(folder: Path, subject: Subject, load: Load, seconds: float) -> Result:
    """Put one load on a subject and return what load.c measured."""
    arguments = [subject.port, load.mode, load.connections, load.window, 0.2 if load.mode == "idle" else seconds]
    room = [f"room={load.room}"] if load.room else []
    keys = [*load.keys, *room, f"pids={','.join(map(str, subject.pids()))}"]
    done = subprocess.run(
        [str(folder / "load"), *map(str, arguments), *keys], capture_output=True, text=True, timeout=180, check=False
    )
    if not done.stdout:
        return {"failed": "".join(done.stderr.strip().splitlines()[:1])}
    result: Result = json.loads(done.stdout)
    return counted(load, result) if load.room else result


def counted(load: Load, result: Result) -> Result:
    """Return the result of a load with rooms; a failure if each push came not about as often as a room has members."""
    if not result["ops_per_s"]:
        return {"failed": "no send was answered"}
    came = result["pushes_per_s"] / result["ops_per_s"]
    # Where time ends an answer may be counted and its pushes not, or the other way round.
    if not 0.8 < came / load.room < 1.25:
        return {"failed": f"a push came {came:.1f} times in a room of {load.room}"}
    return result


def bare_call() -> Result:
    """Return what a bare call between two Ray actors takes."""
    done = subprocess.run(
        [sys.executable, HERE / "barecall.py"], capture_output=True, text=True, check=True, env=os.environ
    )
    result: Result = json.loads(done.stdout.splitlines()[-1])
    return result


def median(rounds: Sequence[Result], key: str) -> float:
    """Return the median of one figure."""
    return float(statistics.median(result[key] for result in rounds if key in result))


def report(results: dict[str, dict[str, list[Result]]], bare: list[Result], options: argparse.Namespace) -> None:
    """Print the table and write the JSON."""
    print("| load | subject | per second | ratio | p50 ms | p99 ms | CPU us each | ratio | load's CPU | target |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for load in LOADS:
        if load.name in results:
            for name, rounds in results[load.name].items():
                print(row(load, name, rounds, results[load.name].get("pomelo, no-delay")))
    print(f"\n{builds()}{f'; servers bound to the CPUs {CPUS}' if options.bound else ''}")
    call = median(bare, "p50_ms")
    print(f"A bare call between two async Ray actors: p50 {call:.2f} ms")
    with contextlib.suppress(KeyError, statistics.StatisticsError):
        routed = median(results["routed echo, 1 x 1"]["pummelo"], "p50_ms")
        print(f"Routed echo, 1 x 1, is {routed / call:.2f} of that (target: at most 1.3)")
    if options.json is not None:
        told = {"builds": builds(), "bound": options.bound, "loads": results, "bare_call": bare}
        options.json.write_text(json.dumps(told, indent=1) + "\n")


def builds() -> str:
    """Return which pummelo is measured, which Python runs it, and how that says that it was configured.

    With profile-guided optimization it runs Python code faster; a distribution may have asked for that in another way.
    """
    asked = "--enable-optimizations" in (sysconfig.get_config_var("CONFIG_ARGS") or "")
    told = "with" if asked else "without"
    python = f"Python {platform.python_version()} ({platform.python_compiler()})"
    return f"pummelo {build()}; {python}, configured {told} --enable-optimizations"


def row(load: Load, name: str, rounds: list[Result], peer: list[Result] | None) -> str:
    """Return one line of the table."""
    failures = [result["failed"] for result in rounds if "failed" in result]
    if len(failures) == len(rounds):
        return f"| {load.name} | {name} | failed: {failures[0]} | | | | | | | |"
    rate, p50, cost = (median(rounds, key) for key in (load.rate, "p50_ms", load.cost))
    ratios = ["", ""]
    told = f"{len(failures)} of {len(rounds)} rounds failed: {failures[0]}" if failures else ""
    if name == "pummelo" and peer and not all("failed" in result for result in peer):
        times, share = rate / median(peer, load.rate), cost / (median(peer, load.cost) or 1)
        ratios = [f"{times:.1f}x", f"{share:.2f}x"]
        told = "; ".join(filter(None, (told, verdict(load, times, share, p50 / (median(peer, "p50_ms") or 1)))))
    own = median(rounds, "load_cpu_s") / max(median(rounds, "secs"), 0.01)
    return (
        f"| {load.name} | {name} | {rate:,.0f} | {ratios[0]} | {p50:.2f} | {median(rounds, 'p99_ms'):.2f} "
        f"| {cost:.2f} | {ratios[1]} | {own:.0%} | {told} |"
    )


def verdict(load: Load, times: float, share: float, p50: float) -> str:
    """Tell each target of a load, and whether it was met."""
    wanted = [
        (f"at least {load.at_least:g}x", times >= load.at_least) if load.at_least else None,
        (f"CPU at most {load.cost_at_most:g}x", share <= load.cost_at_most) if load.cost_at_most else None,
        (f"p50 at most {load.p50_at_most:g}x ({p50:.2f}x)", p50 <= load.p50_at_most) if load.p50_at_most else None,
    ]
    return "; ".join(f"{text}: {'met' if met else 'MISSED'}" for text, met in filter(None, wanted))


if __name__ == "__main__":
    sys.exit(main())
