"""What an operator is shown of a server's inside. All of it can be packed as JSON or msgpack."""

import itertools
import resource
from pathlib import Path
from typing import Any

from handlers.channels import Channel
from handlers.frontend import Frontend
from handlers.frontend_sessions import FrontendSession
from handlers.node import Node

__all__ = ["counts", "inspection", "resident_bytes"]

SHOWN = 1000
"""How many sessions, channels and mirrors are shown at most; the counts are of all."""
STATM = Path("/proc/self/statm")


def inspection(node: Node) -> dict[str, Any]:
    """Return a server's sessions, channels and mirrors: at most 1000 of each, with a count of all."""
    sessions = node.frontend.sessions if node.frontend is not None else ()
    names = node.server.channels.names()
    mirrors = node.frontend.remote.mirror.counts() if node.frontend is not None else []
    return {
        "session_count": len(sessions),
        "sessions": [_session(session) for session in itertools.islice(sessions, SHOWN)],
        "channel_count": len(names),
        "channels": [_channel(node.server.channels.get(name)) for name in names[:SHOWN]],
        "mirror_count": len(mirrors),
        "mirrors": [
            {"server": server_id, "channel": channel, "members": members}
            for server_id, channel, members in mirrors[:SHOWN]
        ],
    }


def counts(frontend: Frontend | None) -> dict[str, int]:
    """Return how many sessions a server has, and how many of them have a uid; 0 for a backend."""
    if frontend is None:
        return {"sessions": 0, "logged_in": 0}
    return {"sessions": len(frontend.sessions), "logged_in": frontend.sessions.logged_in}


def resident_bytes() -> int:
    """Return how many bytes of memory this process holds; where the system does not tell, the most that it ever did."""
    try:
        return int(STATM.read_text().split()[1]) * resource.getpagesize()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _session(session: FrontendSession) -> dict[str, Any]:
    return {
        "id": session.id,
        "uid": session.uid,
        "address": "{}:{}".format(*session.client.address),
        "since": session.since,
        "bound_at": session.bound_at,
        "unanswered": session.unanswered,
        "waiting_bytes": session.client.waiting,
    }


def _channel(channel: Channel) -> dict[str, Any]:
    return {"name": channel.name, "members": len(channel), "frontends": channel.counts()}
