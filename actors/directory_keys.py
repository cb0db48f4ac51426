"""The key ``directory`` of ``servers.yaml``: its fields, and what can be wrong with them. Pure."""

import importlib.util
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal
from urllib.parse import urlsplit

from handlers.store import DirectorySettings

__all__ = ["DIRECTORY_KEYS", "directory_mistakes", "directory_settings"]

DIRECTORY_KEYS: dict[str, Any] = {
    "store": Literal["embedded", "redis"],
    "shards": int,
    "url": str,
    "prefix": str,
    "presence_interval": float,
}

SHARDS = 64
SCHEMES = ("redis", "rediss", "unix")
INTERVAL = (0.05, 60.0)
"""Seconds for which joins and leaves may be gathered."""


def directory_mistakes(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the field and the mistake for each that there is in values of the right types.

    A URL's text is never told: it may hold a password.
    """
    shortest, longest = INTERVAL
    if not shortest <= values.get("presence_interval", 1.0) <= longest:
        yield "presence_interval", f"{shortest:g} to {longest:g} seconds"
    if not 1 <= values.get("shards", 1) <= SHARDS:
        yield "shards", f"1 to {SHARDS}"
    if values.get("store", "embedded") == "embedded":
        for field in ("url", "prefix"):
            if field in values:
                yield field, "it is for store: redis"
        return
    if "shards" in values:
        yield "shards", "it is for store: embedded"
    if "url" not in values:
        yield "url", 'the address of the redis server is expected, as "redis://host:6379/0"'
    elif urlsplit(values["url"]).scheme not in SCHEMES:
        yield "url", f"it begins with one of {', '.join(f'{scheme}://' for scheme in SCHEMES)}"
    if importlib.util.find_spec("redis") is None:
        yield "store", "the package redis is not installed: pip install 'pummelo[redis]'"


def directory_settings(
    values: Mapping[str, Any], name: str, wrong: Callable[[str, str], None], *, single_sessions: bool
) -> DirectorySettings:
    """Return the settings of a game called ``name``, after telling ``wrong`` of each mistake, by its place."""
    for key, mistake in directory_mistakes(values):
        wrong(f"directory.{key}", mistake)
    return DirectorySettings(**{"prefix": f"pummelo:{name}:", **values}, single_sessions=single_sessions)
