"""Whom a broadcast reaches: the sessions that a filter of the app keeps."""

import logging
from collections.abc import Callable, Iterable
from typing import Any

from handlers.app import App
from handlers.frontend_sessions import FrontendSession
from handlers.session import Session

__all__ = ["audience"]

logger = logging.getLogger(__name__)


def audience(
    app: App,
    sessions: Iterable[FrontendSession],
    route: str,
    chosen: tuple[str, Any],
    view: Callable[[FrontendSession], Session],
    own: str,
) -> list[FrontendSession]:
    """Return the sessions that a broadcast filter keeps, ``chosen`` by name and with its parameter.

    One that raises keeps nobody it raised for; one that is not declared keeps nobody. ``view`` gives a session as
    filters see it, ``own`` is the server's id for the log.
    """
    name, param = chosen
    keep = app.broadcast_filters.get(name)
    if keep is None:
        logger.error("%s: there is no broadcast filter %r: %s reaches nobody here", own, name, route)
        return []
    kept = []
    for session in list(sessions):
        try:
            if keep(view(session), route, param):
                kept.append(session)
        except Exception:
            logger.exception("%s: the broadcast filter %r failed for session %d", own, name, session.id)
    return kept
