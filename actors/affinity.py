"""Keeping a server on one CPU.

Its threads wake each other a dozen times a call, and mostly one of them works: on one CPU none has to wake another CPU.
"""

import logging
import os
from pathlib import Path

__all__ = ["keep_on"]

logger = logging.getLogger(__name__)

TASKS = Path("/proc/self/task")


def keep_on(cpu: int) -> None:
    """Have every thread of this process run on the CPU of that number, and whatever it starts from now on.

    For a server as it begins. Where the node has no such CPU, or its system no way to choose one (Linux has,
    sched_setaffinity(2)), the server runs on all of them, and an operator is told: a restart on another node
    must not fail for that.
    """
    try:
        pinned: set[str] = set()
        # A thread that was not on it yet may have begun another while the others were looked through.
        while new := {task.name for task in TASKS.iterdir()} - pinned:
            for thread in new:
                _move(int(thread), cpu)
            pinned |= new
    except (OSError, OverflowError) as error:
        logger.warning("it is not kept on CPU %d but runs on any: %s", cpu, error)


def _move(thread: int, cpu: int) -> None:
    try:
        os.sched_setaffinity(thread, {cpu})
    except ProcessLookupError:
        return  # it has ended meanwhile
