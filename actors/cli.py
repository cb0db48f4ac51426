"""The command ``pummelo``."""

import argparse
import asyncio
import contextlib
import signal
import socket
import sys
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any, Self, TextIO

from actors.build import build
from actors.cluster import ClusterError, RunningGame, launch, ray_cluster
from actors.config import ConfigError, load_game
from actors.delivery import delivered
from actors.game import Game
from actors.loading import load_app
from actors.operator import OperatorError
from actors.tools import add_tool_commands
from handlers import AppError

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status. Standard output carries the results alone, errors go to the other."""
    parser = argparse.ArgumentParser(prog="pummelo", description="Realtime game servers on Ray.")
    parser.add_argument("--version", action="version", version=f"%(prog)s {build()}")
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="run a game until SIGINT or SIGTERM")
    run.add_argument("file", type=Path, help="the game's servers.yaml")
    run.add_argument("--address", help="a Ray cluster, host:port or auto; without it the game starts its own")
    run.add_argument("--dashboard", action="store_true", help="start Ray's dashboard and print its address")
    run.add_argument("--set", action="append", default=[], metavar="TYPE.FIELD=VALUE", help="change the file's value")
    run.add_argument("--name", help="the game's name on the cluster; the file's folder by default")
    run.add_argument("--log-level", default="info", choices=["debug", "info", "warning", "error"])
    run.add_argument("--detach", action="store_true", help="leave the game running on the cluster; needs --address")
    run.set_defaults(act=_run)
    add_tool_commands(commands, _check_app)
    options = parser.parse_args(arguments)
    results = sys.stdout
    try:
        # What a game or Ray prints goes to standard error: the results alone are on standard output.
        with contextlib.redirect_stdout(sys.stderr):
            options.act(options, results)
    except (ConfigError, AppError, ClusterError, OperatorError) as error:
        print("\n".join(f"pummelo: {line}" for line in str(error).splitlines()), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _run(options: argparse.Namespace, results: TextIO) -> None:
    if options.detach and options.address is None:
        raise ClusterError(
            "--detach needs a cluster that outlives this command: start one with `ray start --head`,"
            " then give --address auto"
        )
    game = load_game(options.file, options.set, name=options.name, log_level=options.log_level)
    _check_app(game, options.file)
    if options.address is None:
        _check_ports(game)
    cluster = ray_cluster(options.address, game.namespace, dashboard=options.dashboard)
    with _Interrupted() as interrupted, cluster as dashboard:
        shown = dashboard if options.dashboard else ""
        if options.address is not None:
            game = delivered(game)
        asyncio.run(_serve(game, interrupted, shown, results, detach=options.detach))


class _Interrupted:
    """Notes SIGINT and SIGTERM instead of dying of them; the second one of a kind is as deadly as ever.

    While Ray starts, dying would leave processes of it behind. Ray installs handlers of its own, so once it has started
    ``watch`` has to be called.
    """

    def __init__(self) -> None:
        self.noted = False
        self._event: asyncio.Event | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        self._before = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def watch(self) -> asyncio.Event:
        """Return the event that a signal sets, on the running loop; set already if one came before."""
        event = self._event = asyncio.Event()
        if self.noted:
            event.set()
        for number in self._before:
            asyncio.get_running_loop().add_signal_handler(number, self._note, number)
        return event

    def _note(self, number: int, *_: object) -> None:
        self.noted = True
        if self._event is not None:
            asyncio.get_running_loop().remove_signal_handler(number)
            self._event.set()


async def _serve(game: Game, interrupted: _Interrupted, dashboard: str, results: TextIO, *, detach: bool) -> None:
    event = interrupted.watch()
    if event.is_set():
        return
    running = launch(game)
    leave = False
    try:
        await _until(event, _announce(running, dashboard, results))
        leave = detach and not event.is_set()
        if not leave:
            await _until(event, running.ended())
            # Another command has stopped it.
            leave = not event.is_set()
    finally:
        if not leave:
            await running.stop()


async def _announce(running: RunningGame, dashboard: str, results: TextIO) -> None:
    for member in await running.start():
        if member.frontend:
            print(f"serving {member.id} {member.url}", file=results, flush=True)
    if dashboard:
        print(f"dashboard {dashboard}", file=results, flush=True)
    print("ready", file=results, flush=True)


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
        kind = socket.SOCK_DGRAM if spec.transport == "udp" else socket.SOCK_STREAM
        with socket.socket(family, kind) as probe:
            if kind is socket.SOCK_STREAM:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((spec.host, spec.port))
            except OSError as error:
                mistakes.append(f"{spec.id}: cannot listen on {spec.host}:{spec.port}: {error.strerror}")
    if mistakes:
        raise ConfigError(mistakes)


if __name__ == "__main__":
    sys.exit(main())
