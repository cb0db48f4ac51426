"""Keeping a process on one CPU, tried on processes of their own."""

import json
import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has CPU affinity")

SCRIPT = """
import json, os, sys, threading
from actors.affinity import keep_on, only_cpu

def start(count):
    for _ in range(count):
        threading.Thread(target=threading.Event().wait, daemon=True).start()

start(5)
keep_on(int(sys.argv[1]))
start(1)
threads = [sorted(os.sched_getaffinity(int(thread))) for thread in os.listdir("/proc/self/task")]
print(json.dumps([threads, only_cpu()]))
"""


def run(cpu: int) -> tuple[list[list[int]], int | None, str]:
    """Have a process of seven threads keep itself on a CPU; return where each may run, the CPU, and what was logged."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(cpu)], capture_output=True, text=True, check=True, timeout=30
    )
    threads, only = json.loads(done.stdout)
    return threads, only, done.stderr


@pytest.mark.skipif(os.cpu_count() == 1, reason="every thread is on the only CPU anyway")
def test_every_thread_is_on_the_cpu_those_that_come_later_too() -> None:
    own = max(os.sched_getaffinity(0))
    assert run(own) == ([[own]] * 7, own, "")


def test_where_there_is_no_such_cpu_it_runs_on_any_and_says_so() -> None:
    every = sorted(os.sched_getaffinity(0))
    threads, only, logged = run(8191)
    assert threads == [every] * 7
    assert only == (every[0] if len(every) == 1 else None)
    assert logged == (
        f"it is not kept on CPU 8191 but runs on any of {', '.join(map(str, every))}: [Errno 22] Invalid argument\n"
    )
