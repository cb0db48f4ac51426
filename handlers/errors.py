"""What can go wrong, by whose fault, and how each becomes an answer.

PummeloError
├── AppError               the app's declarations are wrong; raised while it is imported or started
├── ChannelNotFound        this server made no channel of that name
├── NotConfigured          the game's file lacks what a call needs
└── HandlerError           an answer to whoever asked: a code and a message
    ├── BadRequest    400  the body does not fit the route's schema
    ├── NotFound      404  no such route, session or server
    ├── Conflict      409  the session is bound to somebody else
    ├── TooMany       429  more waits than the limits allow
    ├── Unavailable   503  the server is busy, restarting or gone
    └── TimedOut      504  no answer within the deadline
"""

import asyncio
import logging

__all__ = [
    "AppError",
    "BadRequest",
    "ChannelNotFound",
    "Conflict",
    "HandlerError",
    "NotConfigured",
    "NotFound",
    "PummeloError",
    "TimedOut",
    "TooMany",
    "Unavailable",
    "error_for",
    "error_from",
    "is_cancelled",
    "pack_message",
]

logger = logging.getLogger(__name__)

INTERNAL = "internal error"


class PummeloError(Exception):
    """The root of every error that this package raises."""


class AppError(PummeloError):
    """A declaration of the app is wrong. Raised at import or start, never while serving."""


class ChannelNotFound(PummeloError, LookupError):
    """No channel of that name was made by this server; channels are local to the server that made them."""


class NotConfigured(PummeloError, RuntimeError):
    """What was called needs a key in ``servers.yaml`` that is not there; the message names it."""


class HandlerError(PummeloError):
    """An error for whoever asked: a client gets ``{"code": code, "message": message}``, a remote's caller the error.

    Raise it in a handler, filter or remote to choose the answer. Whatever else is raised there becomes code 500
    with a message that gives nothing away, and a traceback in the log.
    Raises ValueError for a code of 0, which says that nothing went wrong.
    """

    code = 500

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        if not isinstance(code, int) or code == 0:
            raise ValueError(f"an error's code is a number, and not 0: {code!r}")
        self.code = code
        self.message = message

    def __str__(self) -> str:
        return f"{self.code} {self.message}"


class _Coded(HandlerError):
    """An error whose class says the code."""

    def __init__(self, message: str) -> None:
        super().__init__(type(self).code, message)

    def __reduce__(self) -> tuple[type, tuple[str]]:
        return type(self), (self.message,)


class BadRequest(_Coded):
    """The body does not fit what the route declares; the message names the field."""

    code = 400


class NotFound(_Coded):
    """No such route, session or server."""

    code = 404


class Conflict(_Coded):
    """The session is already bound to another uid."""

    code = 409


class TooMany(_Coded):
    """More requests wait than the limits allow."""

    code = 429


class Unavailable(_Coded):
    """The server that should answer is busy, restarting or gone."""

    code = 503


class TimedOut(_Coded):
    """No answer came within the deadline. The work may have been done all the same."""

    code = 504


_BY_CODE: dict[int, type[_Coded]] = {
    error.code: error for error in (BadRequest, NotFound, Conflict, TooMany, Unavailable, TimedOut)
}


def error_for(error: BaseException, what: str) -> tuple[int, str]:
    """Return the code and message that answer ``error``; the one place where exceptions become answers.

    ``what`` says in the log what was being done. An error that nobody chose to show is logged with its traceback
    and answered as 500 without detail.
    """
    if isinstance(error, HandlerError):
        # Whoever made it may have changed both since.
        return error.code if isinstance(error.code, int) else 500, str(error.message)
    logger.error("%s failed", what, exc_info=error)
    return 500, INTERNAL


def is_cancelled() -> bool:
    """Tell whether a CancelledError just caught is for this task, and not of something that it waited for."""
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0


def pack_message(message: str) -> bytes:
    """Return an error's message as it travels; whatever it was made from, it must not fail here."""
    return str(message).encode(errors="replace")


def error_from(code: int, message: str) -> HandlerError:
    """Return the error that another server described by ``code`` and ``message``."""
    kind = _BY_CODE.get(code)
    return kind(message) if kind is not None else HandlerError(code, message)
