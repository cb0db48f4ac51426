"""Keeping a server on one CPU.

Its threads wake each other a dozen times a call, and mostly one of them works: on one CPU none has to wake another CPU.
"""

import logging
import os
import sys

__all__ = ["keep_on", "only_cpu"]

logger = logging.getLogger(__name__)


def keep_on(cpu: int) -> None:
    """Have every thread of this process run on the CPU of that number, and whatever they start from now on.

    For a server as it begins; a thread that another one is just starting may be missed. Where the process may not run
    there, since the node has no such CPU or has given it to others, or where the system is not Linux
    (sched_setaffinity(2)), nothing changes and an operator is told: a restart on another node must not fail for that.
    """
    if sys.platform != "linux":
        logger.warning("it runs on any CPU, not on %d alone: only Linux can be told", cpu)
        return
    moved: set[str] = set()
    try:
        # A thread that was not moved yet may have started another one while the others were looked through.
        while new := set(os.listdir("/proc/self/task")) - moved:
            for thread in new:
                _move(int(thread), cpu)
            moved |= new
    except OSError as error:
        others = ", ".join(map(str, sorted(os.sched_getaffinity(0))))
        logger.warning("it is not kept on CPU %d but runs on any of %s: %s", cpu, others, error)


def only_cpu(pid: int = 0) -> int | None:
    """Return the only CPU that a process's first thread may run on, 0 being this process.

    None where there are more, where the process has ended, or where the system is not Linux.
    """
    if sys.platform != "linux":
        return None
    try:
        cpus = os.sched_getaffinity(pid)
    except ProcessLookupError:
        return None
    return cpus.pop() if len(cpus) == 1 else None


def _move(thread: int, cpu: int) -> None:
    try:
        os.sched_setaffinity(thread, {cpu})
    except ProcessLookupError:
        return  # it has ended meanwhile
