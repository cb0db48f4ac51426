"""The game of the soak: rooms that users join, leave and talk in, and an echo that tells which process answered."""

import os
from collections.abc import Sequence
from typing import Any

import msgspec

from handlers import App, Request, Server, Session, rendezvous

app = App("soak", routes=["onChat"])


class Login(msgspec.Struct):
    """Who comes in."""

    uid: str


class Room(msgspec.Struct):
    """Which room is meant."""

    room: str


@app.route("chat")
def by_room(request: Request, servers: Sequence[str]) -> str:
    """Send all requests of a room to the same server."""
    session = request.session
    return rendezvous(session.get("room") or str(session.id), tuple(servers))


@app.handler("connector.entry.login")
async def login(msg: Login, session: Session, server: Server) -> dict[str, Any]:
    """Bind the session."""
    await session.bind(msg.uid)
    return {"code": 200, "server": server.id, "pid": os.getpid()}


@app.handler("connector.entry.room")
async def choose(msg: Room, session: Session) -> dict[str, Any]:
    """Note the room whose server the next requests go to; an empty one for none."""
    session["room"] = msg.room
    await session.push("room")
    return {"code": 200}


@app.handler("chat.room.join")
async def join(session: Session, server: Server) -> dict[str, Any]:
    """Join the room that was chosen."""
    channel = server.channels.create(session["room"])
    present = await channel.add_confirmed(session.uid or "", session.frontend_id)
    return {"code": 200 if present else 404}


@app.handler("chat.room.leave")
async def leave(session: Session, server: Server) -> dict[str, Any]:
    """Leave the room that was chosen."""
    server.channels.create(session["room"]).leave(session.uid or "", session.frontend_id)
    return {"code": 200}


@app.handler("chat.room.say")
async def say(session: Session, server: Server) -> dict[str, Any]:
    """Push to the room."""
    server.channels.create(session["room"]).push("onChat", {"from": session.uid})
    return {"code": 200}


@app.handler("chat.room.members")
async def members(session: Session, server: Server) -> dict[str, Any]:
    """Tell who is in the room."""
    return {"code": 200, "members": server.channels.create(session["room"]).members()}


@app.handler("chat.room.echo")
async def echo(server: Server) -> dict[str, Any]:
    """Tell who answers."""
    return {"code": 200, "server": server.id, "pid": os.getpid()}
