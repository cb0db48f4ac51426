"""A game for tests against real servers: small handlers named for what they do."""

import asyncio
import os
import random
from typing import Any

import msgspec

from actors.operator import Operator
from handlers import App, HandlerError, Server, Session

app = App("test", routes=["onSaid"])


class Login(msgspec.Struct):
    """Who logs in."""

    uid: str


class Value(msgspec.Struct):
    """A session value."""

    key: str
    value: Any = None


class Room(msgspec.Struct):
    """A room, and what is said in it."""

    room: str
    text: str = ""


class Numbered(msgspec.Struct):
    """A numbered request."""

    number: int
    seconds: float = 0.0


class Failure(msgspec.Struct):
    """How to fail."""

    code: int
    message: str


class Target(msgspec.Struct):
    """A server."""

    id: str


closed: list[tuple[str | None, str]] = []


@app.handler("connector.entry.login")
async def login(msg: Login, session: Session) -> None:
    """Bind the session."""
    await session.bind(msg.uid)


@app.handler("connector.entry.logout")
async def logout(session: Session) -> None:
    """Unbind the session."""
    await session.unbind()


@app.handler("connector.entry.show")
async def show(session: Session) -> dict[str, Any]:
    """Show the session as the frontend has it."""
    return {"uid": session.uid, "values": dict(session), "pid": os.getpid()}


@app.handler("connector.entry.crash")
async def crash_on_frontend() -> None:
    """Raise what nobody expects, on the frontend."""
    raise RuntimeError("a secret of the frontend")


@app.handler("area.test.echo")
async def echo(msg: dict[str, Any], server: Server) -> dict[str, Any]:
    """Answer with the body, and where."""
    return {"body": msg, "server": server.id, "pid": os.getpid()}


@app.handler("area.test.crash")
async def crash() -> None:
    """Raise what nobody expects."""
    raise RuntimeError("a secret detail")


@app.handler("area.test.refuse")
async def refuse() -> None:
    """Raise what the client may know."""
    raise HandlerError(418, "a teapot")


@app.handler("area.test.fail")
async def fail(msg: Failure) -> None:
    """Raise an error with a code of the game's own."""
    raise HandlerError(msg.code, msg.message)


@app.handler("area.test.answer")
async def answer(msg: Any) -> Any:
    """Answer with the body alone."""
    return msg


@app.handler("area.test.none")
async def none() -> None:
    """Answer with nothing."""


@app.handler("moon.test.echo")
async def echo_on_the_moon(msg: Any) -> Any:
    """Answer with the body, on a server type that the game has no server of."""
    return msg


@app.handler("area.test.sleep")
async def sleep(msg: Numbered) -> dict[str, int]:
    """Answer later."""
    await asyncio.sleep(msg.seconds)
    return {"number": msg.number}


@app.handler("area.test.nap", concurrent=True)
async def nap(msg: Numbered) -> dict[str, int]:
    """Answer later, whatever else the session asks meanwhile."""
    await asyncio.sleep(msg.seconds)
    return {"number": msg.number}


@app.handler("area.test.random")
async def random_duration(msg: Numbered) -> dict[str, int]:
    """Answer after a random while."""
    await asyncio.sleep(random.uniform(0, 0.005))
    return {"number": msg.number}


@app.handler("area.session.set")
async def set_value(msg: Value, session: Session) -> dict[str, Any]:
    """Set a value and do not push it."""
    session[msg.key] = msg.value
    return dict(session)


@app.handler("area.session.push")
async def push_value(msg: Value, session: Session) -> None:
    """Set a value and push it."""
    session[msg.key] = msg.value
    await session.push(msg.key)


@app.handler("area.session.get")
async def get_values(session: Session) -> dict[str, Any]:
    """Show the session as a backend sees it."""
    return {"uid": session.uid, "values": dict(session)}


@app.handler("area.session.bind")
async def bind(msg: Login, session: Session) -> None:
    """Bind the session from a backend."""
    await session.bind(msg.uid)


@app.handler("area.session.kick")
async def kick(session: Session) -> None:
    """Kick the client from a backend."""
    await session.kick("enough")


@app.handler("area.session.watch")
async def watch(session: Session) -> None:
    """Note when the session closes."""
    session.on_closed(lambda session, reason: closed.append((session.uid, reason)))


@app.handler("area.session.closed")
async def closed_sessions() -> list[tuple[str | None, str]]:
    """Show whose closing was noted here."""
    return closed


hooked: list[tuple[str | None, str]] = []


@app.on_close("area")
async def note_close(session: Session, reason: str, server: Server) -> None:
    """Note each session that closed and that this server dealt with."""
    hooked.append((session.uid, reason))


@app.handler("area.session.hooked")
async def hooked_sessions() -> list[tuple[str | None, str]]:
    """Show what the close hook noted here."""
    return hooked


@app.handler("area.room.join")
async def join(msg: Room, session: Session, server: Server) -> dict[str, Any]:
    """Enter a room of this server."""
    assert session.uid is not None
    present = await server.channels.create(msg.room).add_confirmed(session.uid, session.frontend_id)
    return {"present": present, "server": server.id}


@app.handler("area.room.members")
async def members(msg: Room, server: Server) -> list[str]:
    """List a room's members."""
    return server.channels.get(msg.room).members()


@app.handler("area.room.say")
async def say(msg: Room, session: Session, server: Server) -> dict[str, list[str]]:
    """Say something in a room; answers who was not reached."""
    said = {"text": msg.text, "from": session.uid}
    return {"failed": await server.channels.get(msg.room).push_confirmed("onSaid", said)}


@app.handler("area.room.count", concurrent=True)
async def count(msg: Numbered, session: Session, server: Server) -> dict[str, int]:
    """Push a number to the room "count" and answer it."""
    server.channels.get("count").push("onNumber", {"number": msg.number})
    if msg.number % 3 == 0:
        await asyncio.sleep(random.uniform(0, 0.003))
    return {"number": msg.number}


rebuilt: dict[str, list[str]] = {}


@app.on_rebuilt("area")
async def note_rebuilt(server: Server) -> None:
    """Note who was in the rooms that this server's earlier life made."""
    rebuilt.update({name: server.channels.get(name).members() for name in server.channels.names()})


@app.handler("area.room.rebuilt")
async def rebuilt_rooms() -> dict[str, list[str]]:
    """Show who was in the rooms when this life of the server began."""
    return rebuilt


@app.handler("area.room.leave")
async def leave(msg: Room, session: Session, server: Server) -> dict[str, bool]:
    """Leave a room."""
    assert session.uid is not None
    return {"left": server.channels.get(msg.room).leave(session.uid)}


@app.handler("area.room.look")
async def look(msg: Room, server: Server) -> list[str]:
    """Look for a room and show the error that comes of it."""
    try:
        return server.channels.get(msg.room).members()
    except LookupError as error:
        raise HandlerError(404, str(error)) from error


@app.handler("area.rpc.all")
async def pids(server: Server) -> dict[str, int]:
    """Ask every area server for its process id."""
    return await server.rpc.to_all().call(pid)


@app.handler("connector.operate.add")
async def add_server() -> list[str]:
    """Have another area server started, as an operator would."""
    return await Operator.here().add("area")


@app.handler("connector.operate.remove")
async def remove_server(msg: Target) -> list[str]:
    """Have a server ended."""
    return await Operator.here().remove(msg.id)


@app.remote("area.info.pid")
async def pid() -> int:
    """Return the process id."""
    return os.getpid()
