"""Ray, from the outside: the cluster that a game runs on, its own or a given one, and the game on it."""

import asyncio
import contextlib
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

from actors.game import Game
from actors.watchdog import bounded
from handlers.members import Member

__all__ = ["ClusterError", "RunningGame", "launch", "probe", "ray_cluster"]

logger = logging.getLogger(__name__)

SYSTEM = {"gcs_rpc_server_reconnect_timeout_s": 86_400, "prestart_worker_first_driver": False}
"""Ray's own settings for an embedded Ray. Its processes outlive the loss of its head service by a day, not a minute.
No process is started for tasks ahead of time: servers are actors, and it would stay idle."""
OBJECT_STORE = 100 << 20
"""Bytes of the embedded Ray's object store: the game does not use it."""
PROBE = 2.0
"""Seconds for a given address to take a connection."""
HEALTH = 4.0
"""Seconds for Ray to answer at a given address; the time to import Ray included."""
LOOK = 0.3
"""Seconds between calls of a master that was killed."""


STOP = 55.0
"""Seconds for a game to stop, by force in the end: what takes longer waits for Ray's head service."""
SHUTDOWN = 15.0
"""Seconds for Ray to let go of this process, or for an embedded Ray to end; it takes two."""


class ClusterError(Exception):
    """The cluster cannot be reached, or does not take the game; the message is one line."""


@contextlib.contextmanager
def ray_cluster(
    address: str | None, namespace: str, *, dashboard: bool = False, logs: bool = True, checked: bool = False
) -> Iterator[str]:
    """Join the cluster at ``address``, or start one for as long as the context; yields the dashboard's URL, or "".

    With ``logs`` what the actors that come from here log is shown on standard error. ``checked`` says that the address
    is known to be that of a cluster which takes us.

    Raises ClusterError at once when nothing answers at the address.
    """
    if address is not None and not checked:
        probe(address)
        _check_health(address)
    os.environ.setdefault("RAY_DEDUP_LOGS", "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray  # noqa: PLC0415 - Ray reads its environment when it is imported

    options: dict[str, Any] = {"namespace": namespace, "logging_level": "warning", "log_to_driver": logs}
    if address is None:
        # Never one that happens to run: a game that nobody gave a cluster has its own.
        options |= {"address": "local", "include_dashboard": dashboard, "object_store_memory": OBJECT_STORE}
        options["_system_config"] = SYSTEM
    else:
        options["address"] = address
    try:
        context = ray.init(**options)
    except (OSError, RuntimeError, ValueError, SystemExit) as error:
        where = "Ray did not start" if address is None else f"no Ray cluster at {address}"
        ray.shutdown()
        raise ClusterError(f"{where}: {' '.join(str(error).split())}") from error
    try:
        yield f"http://{context.dashboard_url}" if context.dashboard_url else ""
    finally:
        with bounded(SHUTDOWN, "Ray's head service does not answer, so Ray was left as it was"):
            ray.shutdown()


class RunningGame:
    """A game that was launched: its master, and how to end it."""

    def __init__(self, game: Game, master: Any) -> None:
        self._game = game
        self._master = master

    async def start(self) -> list[Member]:
        """Start the servers; returns them. Raises ClusterError with a line for each that cannot start."""
        import ray  # noqa: PLC0415

        try:
            members: list[Member] = await self._master.launch.remote()
        except ray.exceptions.RayTaskError as error:
            raise ClusterError(str(error.cause)) from error
        except ray.exceptions.RayError as error:
            raise ClusterError("the master died while it started the servers") from error
        return members

    async def ended(self) -> None:
        """Return when somebody else has stopped the game."""
        import ray  # noqa: PLC0415

        while True:
            try:
                await self._master.ended.remote()
            except ray.exceptions.ActorUnavailableError:
                # It was killed and comes back.
                await asyncio.sleep(LOOK)
                continue
            except ray.exceptions.RayError as error:
                logger.debug("the master is gone for good: %s", error)
            return

    async def stop(self) -> None:
        """End the servers and the master; by force where the master cannot do it within 40 seconds."""
        from actors.operator import Operator, OperatorError  # noqa: PLC0415

        try:
            with bounded(STOP, "Ray's head service does not answer; servers on a given cluster go on"):
                await Operator(self._game.name, self._master).stop()
        except OperatorError as error:
            logger.error("%s", error)


def launch(game: Game) -> RunningGame:
    """Start a game's master on the cluster joined before. Raises ClusterError when the game runs there already."""
    import ray  # noqa: PLC0415

    from actors.fleet import actor_options  # noqa: PLC0415
    from actors.master import Master  # noqa: PLC0415
    from actors.membership import MASTER  # noqa: PLC0415

    try:
        master = ray.remote(Master).options(**actor_options(MASTER, game.namespace, 0.01)).remote(game)
    except ValueError as error:
        raise ClusterError(f"the game {game.name!r} runs already on this cluster") from error
    return RunningGame(game, master)


def probe(address: str) -> None:
    """Raise ClusterError unless something takes connections there; ``ray.init`` itself would wait for two minutes."""
    host, colon, port = address.rpartition(":")
    if address == "auto":
        return
    if not colon or not port.isdigit():
        raise ClusterError(f"an address is host:port or auto: {address!r}")
    try:
        socket.create_connection((host.strip("[]"), int(port)), PROBE).close()
    except OSError as error:
        raise ClusterError(f"no Ray cluster at {address}: {error.strerror or error}") from error


def _check_health(address: str) -> None:
    """Raise ClusterError unless what answers there is a Ray head, in a process that can be ended when it waits.

    ``ray.init`` would wait for minutes on any other server that takes connections. A cluster that was started with a
    token wants it from its clients, but they only send it when they are told to (``RAY_AUTH_MODE=token``): where nobody
    said anything, they are.
    """
    healthy, said = _asked_for_health(address)
    if not healthy and "AuthenticationError" in said and "RAY_AUTH_MODE" not in os.environ:
        os.environ["RAY_AUTH_MODE"] = "token"
        healthy, said = _asked_for_health(address)
    if not healthy:
        token = "; it wants another authentication token (RAY_AUTH_TOKEN_PATH)" if "AuthenticationError" in said else ""
        raise ClusterError(f"no Ray cluster at {address}{token}")


def _asked_for_health(address: str) -> tuple[bool, str]:
    command = [sys.executable, "-m", "ray.scripts.scripts", "health-check"]
    if address != "auto":
        command += ["--address", address]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=HEALTH, check=False)
    except subprocess.TimeoutExpired:
        raise ClusterError(f"no Ray cluster at {address}: what answers there is not Ray") from None
    return done.returncode == 0, done.stderr
