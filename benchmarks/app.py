"""The game that is measured: echoes on a frontend and on a backend, and rooms that are pushed to."""

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec

from handlers import App, Request, Server, Session, rendezvous

app = App("bench", routes=["onChat"])


class Enter(msgspec.Struct):
    """Who enters which room."""

    uid: str
    room: str


class Body(msgspec.Struct):
    """What is echoed or said."""

    body: str


@app.route("chat")
def by_room(request: Request, servers: Sequence[str]) -> str:
    """Send everything of a room to one server, as the peer's app does."""
    session = request.session
    return rendezvous(session.get("room") or session.uid or str(session.id), tuple(servers))


@app.handler("connector.entryHandler.enter")
async def enter(msg: Enter, session: Session, server: Server) -> dict[str, Any]:
    """Bind the session and join the room's channel."""
    await session.bind(msg.uid)
    session["room"] = msg.room
    await session.push("room")
    members = await server.rpc.by(session).call(add, msg.uid, server.id, msg.room)
    return {"code": 200, "members": members}


@app.handler("connector.entryHandler.echo")
async def echo_here(msg: Body) -> dict[str, Any]:
    """Answer with the body, on the frontend."""
    return {"code": 200, "body": msg.body}


@app.handler("chat.chatHandler.echo")
async def echo(msg: Body) -> dict[str, Any]:
    """Answer with the body, on a backend."""
    return {"code": 200, "body": msg.body}


@app.handler("chat.chatHandler.slow")
async def slow(msg: Body) -> dict[str, Any]:
    """Answer with the body after two seconds."""
    await asyncio.sleep(2)
    return {"code": 200, "body": msg.body}


@app.handler("chat.chatHandler.send")
async def send(msg: Body, session: Session, server: Server) -> dict[str, Any]:
    """Push the body to the room."""
    server.channels.get(session["room"]).push("onChat", {"from": session.uid, "body": msg.body})
    return {"code": 200}


@app.remote("chat.chatRemote.add")
async def add(server: Server, uid: str, frontend_id: str, room: str) -> int:
    """Put a user into a room; returns how many are in it."""
    channel = server.channels.create(room)
    channel.add(uid, frontend_id)
    return len(channel)
