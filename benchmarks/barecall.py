"""The yardstick of an idle routed request: one bare call between two async Ray actors. Prints JSON."""

import json
import logging
import time
from typing import Any

import ray


class Answers:
    """Answers."""

    async def answer(self, data: bytes) -> bytes:
        """Return what came."""
        return data


class Asks:
    """Asks the other, one call at a time."""

    def __init__(self, other: Any) -> None:
        self.other = other

    async def ask(self, seconds: float) -> list[float]:
        """Ask for some seconds; returns how long each call took, in seconds."""
        took: list[float] = []
        until = time.perf_counter() + seconds
        while (start := time.perf_counter()) < until:
            await self.other.answer.remote(b"x" * 100)
            took.append(time.perf_counter() - start)
        return took


def main() -> None:
    """Measure for 4 seconds."""
    ray.init(
        address="local",
        include_dashboard=False,
        object_store_memory=100 << 20,
        logging_level=logging.ERROR,
        log_to_driver=False,
    )
    asks: Any = ray.remote(Asks).options(num_cpus=0.01).remote(ray.remote(Answers).options(num_cpus=0.01).remote())
    ray.get(asks.ask.remote(1.0))
    took = sorted(ray.get(asks.ask.remote(4.0)))
    print(json.dumps({"p50_ms": took[len(took) // 2] * 1000, "p99_ms": took[len(took) * 99 // 100] * 1000}))
    ray.shutdown()


if __name__ == "__main__":
    main()
