"""``python -m actors.probe ADDRESS``: the games on a Ray cluster, one name a line, sorted.

A process of its own, since ``ray.init`` waits for minutes where something else answers, and this can be ended.
"""

import logging
import os
import subprocess
import sys
from pathlib import Path

__all__ = ["PREFIX", "games_at", "send_token"]

PREFIX = "pummelo-"
TOKEN = Path("~/.ray/auth_token").expanduser()
WITHIN = 15.0
"""Seconds for a Ray to answer whose processes are here; on a machine without idle cores it takes most of them."""


def games_at(address: str, within: float = WITHIN) -> list[str] | None:
    """Return the names of the games on the cluster at an address; None where no Ray answers, or not to us."""
    command = [sys.executable, "-m", "actors.probe", address]
    environment = os.environ | {"RAY_USAGE_STATS_ENABLED": "0"}
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=within, check=False)
    except subprocess.TimeoutExpired:
        return None
    return done.stdout.split() if done.returncode == 0 else None


def send_token() -> None:
    """Have Ray send this machine's authentication token, if there is one and nobody has said anything of it.

    A cluster that has a token wants it, but clients only send it when told to; one that has none ignores it.
    """
    there = "RAY_AUTH_TOKEN" in os.environ or "RAY_AUTH_TOKEN_PATH" in os.environ or TOKEN.exists()
    if there:
        os.environ.setdefault("RAY_AUTH_MODE", "token")


def _main(address: str) -> None:
    import ray.util  # noqa: PLC0415

    from actors.membership import MASTER  # noqa: PLC0415

    ray.init(address, namespace=PREFIX, log_to_driver=False, logging_level=logging.ERROR)
    masters = [actor for actor in ray.util.list_named_actors(all_namespaces=True) if actor["name"] == MASTER]
    games = {actor["namespace"].removeprefix(PREFIX) for actor in masters if actor["namespace"].startswith(PREFIX)}
    sys.stdout.writelines(f"{game}\n" for game in sorted(games))
    sys.stdout.flush()
    # Ray's own orderly end takes longer than all this.
    os._exit(0)


if __name__ == "__main__":
    _main(sys.argv[1])
