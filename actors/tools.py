"""The tool commands: what ``pummelo`` does to games that run."""

import argparse
import asyncio
import contextlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from actors.config import load_game
from actors.game import Game
from actors.operations import RATE
from actors.tables import inspection_text, routes_text, servers_table

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from actors.operator import Operator

__all__ = ["add_tool_commands"]

REFRESH = 1.0
"""Seconds between two pictures of ``list --watch``."""
CLEAR = "\x1b[2J\x1b[H"

CheckApp = Callable[[Game, Path], None]


def add_tool_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]", check_app: CheckApp) -> None:
    """Add the tool commands to a parser; each sets ``act``, which takes the options and where its result goes.

    ``check_app`` imports a game's app, and raises ConfigError for what is wrong with it.
    """
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--address", help="the game's Ray cluster, host:port; found by itself on this machine")
    common.add_argument("--name", help="the game's name, where several run")
    as_json = argparse.ArgumentParser(add_help=False)
    as_json.add_argument("--json", action="store_true", help="print JSON")
    rate = argparse.ArgumentParser(add_help=False)
    rate.add_argument(
        "--rate", type=_rate, default=RATE, help="clients sent away a second (%(default)g)", metavar="CLIENTS"
    )
    force = argparse.ArgumentParser(add_help=False)
    force.add_argument("--force", action="store_true", help="even the last server of its type")

    listing = commands.add_parser("list", help="show the servers of a game", parents=[common, as_json])
    listing.add_argument("--watch", action="store_true", help="again every second, until interrupted")
    listing.set_defaults(act=_list)

    one = commands.add_parser("inspect", help="show all there is to know of a server", parents=[common, as_json])
    one.add_argument("id", help="the server's id")
    one.set_defaults(act=_inspect)

    routes = commands.add_parser("routes", help="show what can be called in a game", parents=[common, as_json])
    routes.add_argument("file", type=Path, nargs="?", help="a game's servers.yaml, instead of the game that runs")
    routes.set_defaults(act=lambda options, results: _routes(options, results, check_app))

    restart = commands.add_parser("restart", help="restart servers one by one", parents=[common, rate])
    restart.add_argument("target", nargs="?", metavar="TYPE|ID", help="a server type or id; all without it")
    restart.add_argument("--file", type=Path, help="a servers.yaml to go on with, instead of the game's own")
    restart.set_defaults(act=lambda options, results: _restart(options, results, check_app))

    add = commands.add_parser("add", help="start further servers of a type", parents=[common])
    add.add_argument("type", help="the server type")
    add.add_argument("count", type=int, nargs="?", default=1, help="how many (1)")
    add.set_defaults(act=_add)

    for command, act, text in (
        ("drain", _drain, "give a server no new work and send its clients away"),
        ("remove", _remove, "drain a server and end it for good"),
    ):
        parser = commands.add_parser(command, help=text, parents=[common, rate, force])
        parser.add_argument("id", help="the server's id")
        parser.set_defaults(act=act)

    kick = commands.add_parser("kick", help="close every session of a user", parents=[common])
    kick.add_argument("uid", help="the user's id")
    kick.add_argument("--reason", default="kicked", help="what the clients are told (%(default)s)")
    kick.set_defaults(act=_kick)

    stop = commands.add_parser("stop", help="end a game", parents=[common])
    stop.set_defaults(act=_stop)


def _list(options: argparse.Namespace, results: TextIO) -> None:
    with _operating(options) as operator:

        async def show() -> None:
            servers = await operator.list()
            text = _json(servers) if options.json else servers_table(servers)
            print(CLEAR * (options.watch and results.isatty()) + text, file=results, flush=True)

        asyncio.run(show())
        with contextlib.suppress(KeyboardInterrupt):
            while options.watch:
                time.sleep(REFRESH)
                if not options.json and not results.isatty():
                    print(file=results)
                asyncio.run(show())


def _inspect(options: argparse.Namespace, results: TextIO) -> None:
    with _operating(options) as operator:
        server = asyncio.run(operator.inspect(options.id))
    print(_json(server) if options.json else inspection_text(server), file=results)


def _routes(options: argparse.Namespace, results: TextIO, check_app: CheckApp) -> None:
    from actors.loading import load_app  # noqa: PLC0415
    from actors.routes import describe_routes  # noqa: PLC0415

    if options.file is not None:
        game = load_game(options.file)
    else:
        with _operating(options) as operator:
            game = asyncio.run(operator.game())
    check_app(game, game.file)
    routes = describe_routes(load_app(game.folder, game.app, game.server_types))
    print(_json(routes) if options.json else routes_text(routes), file=results)


def _restart(options: argparse.Namespace, results: TextIO, check_app: CheckApp) -> None:
    with _operating(options) as operator:

        def check(game: Game) -> None:
            # Here rather than by the operator alone: this process is new, and imports the app as it is now.
            check_app(game, game.file)

        restart = operator.restart(options.target, file=options.file, rate=options.rate, check=check)
        _print_lines(asyncio.run(restart), results)


def _add(options: argparse.Namespace, results: TextIO) -> None:
    with _operating(options) as operator:
        _print_lines(asyncio.run(operator.add(options.type, options.count)), results)


def _drain(options: argparse.Namespace, results: TextIO) -> None:
    with _operating(options) as operator:
        _print_lines(asyncio.run(operator.drain(options.id, rate=options.rate, force=options.force)), results)


def _remove(options: argparse.Namespace, results: TextIO) -> None:
    with _operating(options) as operator:
        _print_lines(asyncio.run(operator.remove(options.id, rate=options.rate, force=options.force)), results)


def _kick(options: argparse.Namespace, results: TextIO) -> None:
    with _operating(options) as operator:
        print(asyncio.run(operator.kick(options.uid, options.reason)), file=results)


def _stop(options: argparse.Namespace, results: TextIO) -> None:
    with _operating(options) as operator:
        asyncio.run(operator.stop())
        print(f"{operator.name} stopped", file=results)


def _operating(options: argparse.Namespace) -> "AbstractContextManager[Operator]":
    # Only here: it takes Ray's import with it, which a mistake in the command line does not need.
    from actors.discovery import operating  # noqa: PLC0415

    return operating(options.address, options.name)


def _print_lines(lines: list[str], results: TextIO) -> None:
    print("\n".join(lines), file=results)


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, default=str)


def _rate(text: str) -> float:
    rate = float(text)
    if not rate > 0:
        raise argparse.ArgumentTypeError(f"more than 0 clients a second: {text}")
    return rate
