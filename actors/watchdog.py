"""A bound on what cannot be interrupted: calls into Ray that wait for a head service that is gone."""

import contextlib
import os
import sys
import threading
from collections.abc import Iterator

__all__ = ["bounded"]


@contextlib.contextmanager
def bounded(seconds: float, what: str) -> Iterator[None]:
    """End this process, saying ``what`` in one line, unless the context ends in time.

    For the end of a command: Ray waits for its head service as long as the servers go on without it, a day, and its
    exit hook would do so too. An embedded Ray's processes end with the command that started it.
    """
    timer = threading.Timer(seconds, _end, (what,))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _end(what: str) -> None:
    sys.stderr.write(f"pummelo: {what}\n")
    sys.stderr.flush()
    os._exit(1)
