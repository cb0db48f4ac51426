"""Why a process of Ray's ended, as far as Ray knows. It is not in the error that a call to the dead actor raises."""

import asyncio
import logging
import time
from typing import Any

import ray
import ray._private.state
from ray.core.generated import common_pb2, gcs_pb2
from ray.exceptions import RayError

__all__ = ["exit_of"]

logger = logging.getLogger(__name__)

PAUSE, LONGEST = 0.3, 3.0
"""Seconds between looks, the first pause and the longest: the node's daemon tells Ray's head service of an exit some
time after callers notice it."""
PATIENCE = 120.0
"""Seconds for Ray to tell. It notices the loss of a node after as many as its health checks take: more than a minute
with Ray's own settings, where the node is silent (docs/cluster.md)."""


async def exit_of(worker: str, node_id: str) -> tuple[str, str]:
    """Return the kind and detail of the exit of the process with Ray's worker id; two empty texts if Ray never tells.

    ``node_id`` is Ray's of its node, whose own death is an exit too.

    Takes up to two minutes. Ray has this in its table of workers, whose only public way in needs the dashboard.
    """
    until = time.monotonic() + PATIENCE
    pause = PAUSE
    while time.monotonic() < until:
        try:
            found = await asyncio.to_thread(_look, worker, node_id)
        except (AttributeError, RuntimeError, RayError) as error:
            logger.debug("Ray's tables cannot be read: %s", error)
            found = None
        if found is not None:
            return found
        await asyncio.sleep(pause)
        pause = min(pause * 1.5, LONGEST)
    return "", ""


def _look(worker: str, node_id: str) -> tuple[str, str] | None:
    # The node first: of a worker on a node that went with it Ray knows less.
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    for node in nodes:
        if node["NodeID"] == node_id and not node["Alive"]:
            return "NODE_DIED", f"Ray has lost {node['NodeManagerAddress']}"
    accessor = ray._private.state.state._connect_and_get_accessor()  # noqa: SLF001 - see exit_of
    for row in accessor.get_worker_table():
        data = gcs_pb2.WorkerTableData.FromString(row)  # type: ignore[attr-defined] # made at import
        if data.worker_address.worker_id.hex() == worker and not data.is_alive:
            kinds = common_pb2.WorkerExitType  # type: ignore[attr-defined] # made at import
            return kinds.Name(data.exit_type), data.exit_detail
    return None
