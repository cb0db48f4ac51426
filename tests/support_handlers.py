"""What the tests of ``handlers`` share: tests on a virtual clock, and an app that runs what a test gives it."""

import asyncio
import functools
import inspect
import itertools
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

from handlers import App, Server, Session
from handlers.clock import VirtualClockLoop
from handlers.kit import Kit, KitClient, run

__all__ = ["LinkSpy", "Stage", "elapse", "virtual"]

P = ParamSpec("P")
T = TypeVar("T")
Act = Callable[[Session, Server], Any]

TYPES = ("gate", "connector", "chat", "area")


def virtual(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Make an async test one that pytest can call: it runs on a virtual clock."""

    @functools.wraps(test)
    def on_virtual_clock(*args: P.args, **kwargs: P.kwargs) -> None:
        run(test(*args, **kwargs))

    return on_virtual_clock


async def elapse(seconds: float) -> None:
    """Let so much virtual time pass, which takes none; an error on a real clock, where a test waits for a condition."""
    assert isinstance(asyncio.get_running_loop(), VirtualClockLoop)
    await asyncio.sleep(seconds)


class Stage:
    """An app with named fixture handlers for each server type, and one that runs an act of the test's own.

    ``<type>.stage.echo`` returns its message, ``crash`` raises, ``slow`` takes ``msg["seconds"]``. ``within`` runs a
    function with the session and the server of a real request, and brings its result or its exception home.
    """

    def __init__(self) -> None:
        self.app = App("stage", routes=["onNews"])
        self._acts: dict[int, Act] = {}
        self._outcomes: dict[int, Any] = {}
        self._ids = itertools.count(1)
        for server_type in TYPES:
            self._declare(server_type)

    def kit(self, connectors: int = 1, chats: int = 1, **more: Any) -> Kit:
        """Return a kit with so many connectors and chat servers."""
        return Kit(self.app, frontends={"connector": connectors}, backends={"chat": chats}, **more)

    async def within(self, client: KitClient, server_type: str, act: Act) -> Any:
        """Run ``act(session, server)``, plain or async, inside a request of the client."""
        act_id, answer = self._sent(client, server_type, act)
        await asyncio.wait_for(answer, 60)
        outcome = self._outcomes.pop(act_id)
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    def send(self, client: KitClient, server_type: str, act: Act) -> asyncio.Future[Any]:
        """Send a request that runs ``act``, and do not wait for it."""
        return self._sent(client, server_type, act)[1]

    async def bound(self, kit: Kit, frontend_id: str, uid: str) -> KitClient:
        """Return a client whose session is bound to a uid."""
        client = await kit.connect(frontend_id)
        await self.within(client, "connector", lambda session, server: session.bind(uid))
        return client

    def _sent(self, client: KitClient, server_type: str, act: Act) -> tuple[int, asyncio.Future[Any]]:
        act_id = next(self._ids)
        self._acts[act_id] = act
        return act_id, client.send_request(f"{server_type}.stage.act", act_id)

    def _declare(self, server_type: str) -> None:
        @self.app.handler(f"{server_type}.stage.act")
        async def act(msg: int, session: Session, server: Server) -> None:
            try:
                self._outcomes[msg] = await settled(self._acts.pop(msg)(session, server))
            except Exception as error:  # noqa: BLE001 - the test raises it again
                self._outcomes[msg] = error

        @self.app.handler(f"{server_type}.stage.echo")
        async def echo(msg: Any) -> Any:
            return msg

        @self.app.handler(f"{server_type}.stage.crash")
        async def crash() -> None:
            raise RuntimeError("the secret of the crash")

        @self.app.handler(f"{server_type}.stage.slow")
        async def slow(msg: dict[str, float]) -> dict[str, float]:
            await elapse(msg["seconds"])
            return msg


async def settled(result: T | Awaitable[T]) -> T:
    """Return a result, waiting for it where that is needed."""
    return await result if inspect.isawaitable(result) else result


class LinkSpy:
    """Notes the entries that one server puts on its links, and lets them pass."""

    def __init__(self, kit: Kit, server_id: str) -> None:
        self.entries: list[tuple[str, int, tuple[Any, ...]]] = []
        links = kit.nodes[server_id].links
        for peer in kit.nodes:
            link: Any = links.to(peer)
            link.send = self._noting(peer, link.send)
            link.request = self._noting(peer, link.request)

    def of(self, kind: int) -> list[tuple[str, tuple[Any, ...]]]:
        """Return whom entries of a kind went to, with their fields."""
        return [(peer, fields) for peer, noted, fields in self.entries if noted == kind]

    def _noting(self, peer: str, send: Callable[..., None]) -> Callable[..., None]:
        def noted(kind: int, fields: tuple[Any, ...], *args: Any, **kwargs: Any) -> None:
            self.entries.append((peer, kind, fields))
            send(kind, fields, *args, **kwargs)

        return noted
