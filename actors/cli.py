"""The command ``pummelo``."""

import argparse
import asyncio
import contextlib
import signal
import socket
import sys
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any

from actors.cluster import ClusterError, RunningGame, launch, ray_cluster
from actors.config import ConfigError, Game, load_game
from actors.loading import load_app
from handlers import AppError

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status. Standard output carries the results alone, errors go to the other."""
    parser = argparse.ArgumentParser(prog="pummelo", description="Realtime game servers on Ray.")
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="run a game until SIGINT or SIGTERM")
    run.add_argument("file", type=Path, help="the game's servers.yaml")
    run.add_argument("--address", help="a Ray cluster, host:port or auto; without it the game starts its own")
    run.add_argument("--dashboard", action="store_true", help="start Ray's dashboard and print its address")
    run.add_argument("--set", action="append", default=[], metavar="TYPE.FIELD=VALUE", help="change the file's value")
    run.add_argument("--name", help="the game's name on the cluster; the file's folder by default")
    run.add_argument("--log-level", default="info", choices=["debug", "info", "warning", "error"])
    options = parser.parse_args(arguments)
    try:
        return _run(options)
    except (ConfigError, AppError, ClusterError) as error:
        print("\n".join(f"pummelo: {line}" for line in str(error).splitlines()), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _run(options: argparse.Namespace) -> int:
    game = load_game(options.file, options.set, name=options.name, log_level=options.log_level)
    _check_app(game, options.file)
    if options.address is None:
        _check_ports(game)
    with ray_cluster(options.address, game.namespace, dashboard=options.dashboard) as dashboard:
        asyncio.run(_serve(game, dashboard if options.dashboard else ""))
    return 0


async def _serve(game: Game, dashboard: str) -> None:
    # After ray.init, which has signal handlers of its own: a signal ends the servers first, then Ray.
    interrupted = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, interrupted.set)
    running = launch(game)
    try:
        await _until(interrupted, _announce(running, dashboard))
        await interrupted.wait()
    finally:
        await running.stop()


async def _announce(running: RunningGame, dashboard: str) -> None:
    for member in await running.start():
        if member.frontend:
            print(f"serving {member.id} {member.url}", flush=True)
    if dashboard:
        print(f"dashboard {dashboard}", flush=True)
    print("ready", flush=True)


async def _until(interrupted: asyncio.Event, work: Coroutine[Any, Any, None]) -> None:
    """Do the work unless interrupted first. Raises what the work raises."""
    working = asyncio.ensure_future(work)
    waiting = asyncio.ensure_future(interrupted.wait())
    await asyncio.wait({working, waiting}, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    if working.done():
        await working
        return
    working.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await working


def _check_app(game: Game, file: Path) -> None:
    """Import the app here too, so that a mistake in it is told before anything starts."""
    try:
        load_app(game.folder, game.app, game.server_types)
    except AppError as error:
        raise ConfigError([f"{file}: {error}"]) from None
    except Exception as error:
        # The game's own module failed: its author needs the trace, not our guess.
        import traceback  # noqa: PLC0415

        traceback.print_exc()
        raise ConfigError([f"{file}: app: importing {game.app} failed: {type(error).__name__}: {error}"]) from error


def _check_ports(game: Game) -> None:
    """Tell of a taken port before Ray is started for nothing. Raises ConfigError with every one."""
    mistakes = []
    for spec in game.servers:
        if not spec.port:
            continue
        family = socket.AF_INET6 if ":" in spec.host else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((spec.host, spec.port))
            except OSError as error:
                mistakes.append(f"{spec.id}: cannot listen on {spec.host}:{spec.port}: {error.strerror}")
    if mistakes:
        raise ConfigError(mistakes)


if __name__ == "__main__":
    sys.exit(main())
