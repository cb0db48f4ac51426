"""What can be called in a game: its handlers and remotes with their schemas and first words of documentation. Pure."""

import inspect
from typing import Any

import msgspec

from handlers import App

__all__ = ["describe_routes"]


def describe_routes(app: App) -> list[dict[str, Any]]:
    """Return every route, sorted: route, kind ("handler" or "remote"), server type, message and documentation.

    ``message`` is the JSON schema of a handler's body, "any" where it takes anything; for a remote its signature.
    """
    handlers = [
        {
            "route": handler.route,
            "kind": "handler",
            "server_type": handler.server_type,
            "message": _schema(handler.schema),
            "doc": _first_paragraph(handler.function.__doc__),
        }
        for handler in app.handlers.values()
    ]
    remotes = [
        {
            "route": remote.route,
            "kind": "remote",
            "server_type": remote.server_type,
            "message": str(inspect.signature(remote.function)),
            "doc": _first_paragraph(remote.__doc__),
        }
        for remote in app.remotes.values()
    ]
    return sorted(handlers + remotes, key=lambda route: (route["route"], route["kind"]))


def _schema(schema: Any) -> Any:
    try:
        described = msgspec.json.schema(schema)
    except TypeError:  # a type that msgspec reads by a hook of the game's
        return "any"
    # dict and Any take whatever comes.
    return "any" if described in ({}, {"type": "object"}) else described


def _first_paragraph(doc: str | None) -> str:
    return " ".join(inspect.cleandoc(doc or "").partition("\n\n")[0].split())
