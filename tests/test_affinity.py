"""Keeping a process on one CPU, tried on processes of their own."""

import json
import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no CPU affinity")

SCRIPT = """
import json, os, sys, threading
from actors.affinity import keep_on

def cpus():
    return [sorted(os.sched_getaffinity(int(thread))) for thread in os.listdir("/proc/self/task")]

end = threading.Event()
for _ in range(5):
    threading.Thread(target=end.wait).start()
keep_on(int(sys.argv[1]))
threading.Thread(target=end.wait).start()
print(json.dumps(cpus()))
end.set()
"""


def run(cpu: int) -> tuple[list[list[int]], str]:
    """Have a process of seven threads keep itself on a CPU; return where each may run, and what was logged."""
    done = subprocess.run([sys.executable, "-c", SCRIPT, str(cpu)], capture_output=True, text=True, check=True)
    return json.loads(done.stdout), done.stderr


def test_every_thread_is_on_the_cpu_those_that_come_later_too() -> None:
    own = max(os.sched_getaffinity(0))
    assert run(own) == ([[own]] * 7, "")


@pytest.mark.parametrize("cpu", [99_999, 2**40])
def test_where_there_is_no_such_cpu_it_runs_on_any_and_says_so(cpu: int) -> None:
    where, logged = run(cpu)
    assert where == [sorted(os.sched_getaffinity(0))] * 7
    assert logged.startswith(f"it is not kept on CPU {cpu} but runs on any: ")
