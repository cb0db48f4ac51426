"""Functions that an app declares for its servers, and the decorator that declares them."""

import inspect
import logging
from collections.abc import Callable, Iterable
from typing import Any, TypeVar, overload

__all__ = ["Hooks", "run_logged"]

logger = logging.getLogger(__name__)

F = TypeVar("F", bound=Callable[..., Any])


class Hooks:
    """Functions declared for a server type or for all, and the decorator that declares them.

    ``@app.before`` declares for servers of every type, ``@app.before("chat")`` for one. The functions are plain or
    async. ``kind`` is what one of them is called, with its article, where a mistake is told.
    """

    def __init__(self, kind: str, changing: Callable[[], None]) -> None:
        self.kind = kind
        self._changing = changing
        self._declared: list[tuple[str | None, Callable[..., Any]]] = []

    @overload
    def __call__(self, target: str) -> Callable[[F], F]: ...

    @overload
    def __call__(self, target: F) -> F: ...

    def __call__(self, target: Any) -> Any:
        """Declare the decorated function. Raises AppError once the app has started."""
        if isinstance(target, str):
            return lambda function: self.add(function, target)
        return self.add(target)

    def add(self, function: F, server_type: str | None = None) -> F:
        """Declare a function, for servers of every type or of one. Raises AppError once the app has started."""
        self._changing()
        self._declared.append((server_type, function))
        return function

    def functions(self, server_type: str) -> list[Callable[..., Any]]:
        """Return the functions for servers of a type, in the order of declaration."""
        return [function for declared, function in self._declared if declared in (None, server_type)]

    @property
    def server_types(self) -> set[str]:
        """The server types that functions were declared for."""
        return {declared for declared, _ in self._declared if declared is not None}


async def run_logged(functions: Iterable[Callable[..., Any]], where: str, *arguments: Any) -> None:
    """Call functions, plain or async, one after the other; one that raises is logged and the rest still run.

    ``where`` is the id of the server, for the log.
    """
    for function in functions:
        try:
            result = function(*arguments)
            if inspect.isawaitable(result):
                await result
        except Exception:
            logger.exception("%s: the hook %r failed for %r", where, function, arguments[0])
