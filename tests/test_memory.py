"""The garbage collector of a server, which looks rarely, and does look."""

import subprocess
import sys

SCRIPT = """
import gc, sys
sys.path[:0] = {path!r}
from actors.memory import spare_the_collector

forever = [[] for _ in range(200_000)]
spare_the_collector()

class Lost:
    pass

living = [Lost() for _ in range(1000)]
for one in living:
    one.itself = one
gc.collect(1)
del living[:], one
before = gc.get_stats()[2]["collections"]
for _ in range(1_300_000):
    pair = [], []
    pair[0].append(pair[1])
    pair[1].append(pair[0])
print(gc.get_stats()[2]["collections"] - before, sum(isinstance(one, Lost) for one in gc.get_objects()))
"""


def test_cycles_that_lived_long_are_found_though_much_that_lives_for_ever_was_frozen() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(path=sys.path)], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.split() == ["1", "0"]
