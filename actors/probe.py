"""``python -m actors.probe ADDRESS``: the games on a Ray cluster, one name a line.

A process of its own, since ``ray.init`` waits for minutes where something else answers, and this can be ended.
"""

import os
import subprocess
import sys

__all__ = ["games_at"]

PREFIX = "pummelo-"
WITHIN = 10.0
"""Seconds for Ray to answer."""


def games_at(address: str) -> list[str] | None:
    """Return the names of the games on the cluster at an address; None where no Ray answers, or not to us.

    Sets ``RAY_AUTH_MODE=token`` where the cluster wants a token and nobody has said anything of it.
    """
    command = [sys.executable, "-m", "actors.probe", address]
    environment = os.environ | {"RAY_USAGE_STATS_ENABLED": "0"}
    for mode in ({}, {"RAY_AUTH_MODE": "token"}):
        if mode and "RAY_AUTH_MODE" in os.environ:
            return None
        try:
            done = subprocess.run(
                command, env=environment | mode, capture_output=True, text=True, timeout=WITHIN, check=False
            )
        except subprocess.TimeoutExpired:
            return None
        if done.returncode == 0:
            os.environ.update(mode)
            return done.stdout.split()
        if "AuthenticationError" not in done.stderr:
            return None
    return None


def _main(address: str) -> None:
    import ray.util  # noqa: PLC0415

    from actors.membership import MASTER  # noqa: PLC0415

    ray.init(address, namespace=PREFIX, log_to_driver=False, logging_level="error")
    for actor in ray.util.list_named_actors(all_namespaces=True):
        if actor["name"] == MASTER and actor["namespace"].startswith(PREFIX):
            sys.stdout.write(actor["namespace"].removeprefix(PREFIX) + "\n")
    sys.stdout.flush()
    # Ray's own orderly end takes longer than all this.
    os._exit(0)


if __name__ == "__main__":
    _main(sys.argv[1])
