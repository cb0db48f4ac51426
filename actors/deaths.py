"""Why a process of Ray's ended, as far as Ray knows. It is not in the error that a call to the dead actor raises."""

import asyncio
import logging
from typing import Any

import ray
import ray._private.state
from ray.core.generated import common_pb2, gcs_pb2

__all__ = ["exit_of"]

logger = logging.getLogger(__name__)

TRIES = 10
PAUSE = 0.3
"""Seconds between looks: the node's daemon tells Ray's head service of an exit some time after callers notice it."""


async def exit_of(worker: str, node_id: str) -> tuple[str, str]:
    """Return the kind and detail of the exit of the process with Ray's worker id; two empty texts if Ray never tells.

    ``node_id`` is Ray's of its node, whose own death is an exit too; that Ray notices after seconds.

    Takes up to 3 seconds. Ray has this in its table of workers, whose only public way in needs the dashboard.
    """
    for _ in range(TRIES):
        found = await asyncio.to_thread(_look, worker)
        if found is not None:
            return found
        await asyncio.sleep(PAUSE)
    address = await asyncio.to_thread(_lost, node_id)
    return ("NODE_DIED", f"Ray has lost {address}") if address else ("", "")


def _lost(node_id: str) -> str:
    """Return the address of a node that Ray holds for dead, "" for any other."""
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    dead = (str(node["NodeManagerAddress"]) for node in nodes if node["NodeID"] == node_id and not node["Alive"])
    return next(dead, "")


def _look(worker: str) -> tuple[str, str] | None:
    try:
        accessor = ray._private.state.state._connect_and_get_accessor()  # noqa: SLF001 - see exit_of
        rows = accessor.get_worker_table()
    except (AttributeError, RuntimeError) as error:
        logger.debug("Ray's table of workers cannot be read: %s", error)
        return None
    for row in rows:
        data = gcs_pb2.WorkerTableData.FromString(row)  # type: ignore[attr-defined] # made at import
        if data.worker_address.worker_id.hex() == worker and not data.is_alive:
            kinds = common_pb2.WorkerExitType  # type: ignore[attr-defined] # made at import
            return kinds.Name(data.exit_type), data.exit_detail
    return None
