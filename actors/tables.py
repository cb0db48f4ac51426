"""What tool commands print: results as aligned text. Pure."""

import time
from collections.abc import Sequence
from typing import Any

__all__ = ["inspection_text", "routes_text", "servers_table", "table"]

_COLUMNS = ("id", "type", "node", "pid", "connections", "requests/s", "p99", "memory", "uptime", "state", "last end")


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return rows below their heads, each column as wide as its widest cell."""
    every = [head, *rows]
    widths = [max(len(row[column]) for row in every) for column in range(len(head))]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in every)


def servers_table(servers: Sequence[dict[str, Any]]) -> str:
    """Return the servers as ``Operator.list`` gives them, one a line; "-" where something is not known."""
    return table(_COLUMNS, [_server(server) for server in servers])


def _server(server: dict[str, Any]) -> list[str]:
    return [
        server["id"],
        server["type"],
        server.get("node") or "-",
        _known(server.get("pid")),
        _known(server.get("connections") if server.get("frontend") else None),
        _number(server.get("requests_per_second"), ""),
        _number(server.get("p99_ms"), " ms"),
        "-" if server.get("rss") is None else f"{server['rss'] / (1 << 20):.0f} MiB",
        "-" if server.get("uptime") is None else _span(server["uptime"]),
        server.get("state", "-"),
        _end(server.get("last_end")),
    ]


def inspection_text(server: dict[str, Any]) -> str:
    """Return what ``Operator.inspect`` gives: the server's state, then a table for each thing that it has."""
    plain = [[key, _plain(value)] for key, value in server.items() if not isinstance(value, list | dict)]
    parts = ["\n".join(f"{key:<20}{value}" for key, value in plain)]
    for key in ("sessions", "channels", "mirrors", "links", "ends"):
        rows = server.get(key)
        if isinstance(rows, list) and rows:
            shown = [_ended(row) if key == "ends" else row for row in rows]
            head = list(shown[0])
            parts.append(f"{key}\n" + table(head, [[_plain(row.get(name)) for name in head] for row in shown]))
    return "\n\n".join(parts)


def routes_text(routes: Sequence[dict[str, Any]]) -> str:
    """Return the routes of a game, one a line."""
    head = ("route", "kind", "message", "documentation")
    return table(head, [[r["route"], r["kind"], _message(r["message"]), r["doc"]] for r in routes])


def _message(schema: Any) -> str:
    if isinstance(schema, str):
        return schema
    definition = schema
    if "$ref" in schema:
        definition = schema["$defs"][schema["$ref"].rpartition("/")[2]]
    if "properties" not in definition:
        return str(definition.get("type", "any"))
    required = definition.get("required", [])
    fields = (
        f"{name}{'' if name in required else '?'}: {_type(field)}" for name, field in definition["properties"].items()
    )
    return "{" + ", ".join(fields) + "}"


def _type(field: dict[str, Any]) -> str:
    if "anyOf" in field:
        return " | ".join(_type(one) for one in field["anyOf"])
    if "$ref" in field:
        return str(field["$ref"].rpartition("/")[2])
    if "enum" in field:
        return " | ".join(repr(value) for value in field["enum"])
    return str(field.get("type", "any"))


def _ended(end: dict[str, Any]) -> dict[str, Any]:
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(end["time"]))
    return {"time": when, "incarnation": end["incarnation"], "planned": end["planned"], "reason": end["reason"]}


def _end(end: dict[str, Any] | None) -> str:
    return "-" if end is None else f"{_span(max(0.0, time.time() - end['time']))} ago: {end['reason']}"


def _known(value: Any) -> str:
    return "-" if value is None else str(value)


def _plain(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3f}".rstrip("0").rstrip(".")
    if isinstance(value, dict):
        return ", ".join(f"{key}: {_plain(one)}" for key, one in value.items()) or "-"
    return _known(value)


def _number(value: float | None, unit: str) -> str:
    return "-" if value is None else f"{value:.1f}{unit}" if value < 100 else f"{value:.0f}{unit}"


def _span(seconds: float) -> str:
    whole = int(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02}s"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02}m"
    return f"{whole // 86400}d{whole % 86400 // 3600:02}h"
