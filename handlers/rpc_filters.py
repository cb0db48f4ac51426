"""The built-in filters of calls between servers (pomelo's ``rpcFilters``).

from handlers import rpc_filters

app.rpc_filter(rpc_filters.rpc_log(0.5))
app.rpc_filter(rpc_filters.toobusy(), "chat")    # calls that start on chat servers
"""

import asyncio
import logging

from handlers.errors import Unavailable
from handlers.filters import TOO_BUSY
from handlers.request import Reply
from handlers.rpc import RpcCall
from handlers.server import Server

__all__ = ["RpcLog", "RpcTooBusy", "rpc_log", "toobusy"]

logger = logging.getLogger(__name__)


def rpc_log(threshold: float = 0.0) -> "RpcLog":
    """Return the filter that logs each call that took ``threshold`` seconds or more: where to, which, how long."""
    return RpcLog(threshold)


def toobusy(max_lag: float = 0.07) -> "RpcTooBusy":
    """Return the filter that refuses calls to others with Unavailable while this server is late by ``max_lag`` s."""
    return RpcTooBusy(max_lag)


class RpcLog:
    """See ``rpc_log``."""

    def __init__(self, threshold: float) -> None:
        self._threshold = threshold
        self._key = f"rpc_log {id(self)}"

    def before(self, call: RpcCall, server: Server) -> None:
        """Note when the call began."""
        call.local[self._key] = asyncio.get_running_loop().time()

    def after(self, call: RpcCall, reply: Reply, server: Server) -> None:
        """Log how long it took; one that an earlier filter refused never began here."""
        began = call.local.get(self._key)
        if began is None:
            return
        used = asyncio.get_running_loop().time() - began
        if used >= self._threshold:
            outcome = "done" if reply.error is None else f"failed ({reply.error})"
            logger.info("%s: %s on %s %s in %.1f ms", server.id, call.route, call.server_id, outcome, used * 1000)


class RpcTooBusy:
    """See ``toobusy``."""

    def __init__(self, max_lag: float) -> None:
        self._max_lag = max_lag

    def before(self, call: RpcCall, server: Server) -> None:
        """Raise Unavailable while the server is too busy."""
        if server.lag > self._max_lag:
            raise Unavailable(TOO_BUSY)
