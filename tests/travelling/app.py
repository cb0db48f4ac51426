"""A game that tells where it runs."""

import os
from typing import Any

import msgspec
import rules  # type: ignore[import-not-found]

from handlers import App, HandlerError, Server, Session

app = App("travelling", routes=["onSaid"])


class Login(msgspec.Struct):
    """Who logs in."""

    uid: str


class Said(msgspec.Struct):
    """What is said to the room."""

    text: str


def place(server: Server) -> dict[str, Any]:
    """Tell which server this is, in which process, on which node, and with which rules."""
    return {
        "rules": rules.GREETING,
        "server": server.id,
        "pid": os.getpid(),
        "node": os.environ.get("PUMMELO_TEST_NODE", ""),
    }


@app.handler("gate.entry.query")
async def query(server: Server) -> dict[str, Any]:
    """Return the connectors there are, as clients reach them."""
    connectors = server.members("connector")
    if not connectors:
        raise HandlerError(503, "no connector is up")
    return {one.id: f"ws://{one.host}:{one.port}" for one in connectors}


@app.handler("connector.entry.login")
async def login(msg: Login, session: Session) -> dict[str, Any]:
    """Bind the session."""
    await session.bind(msg.uid)
    return {"greeting": rules.GREETING}


@app.handler("connector.entry.show")
async def show(server: Server) -> dict[str, Any]:
    """Tell where the connector is."""
    return place(server)


@app.handler("chat.room.join")
async def join(session: Session, server: Server) -> dict[str, Any]:
    """Enter the room of this server."""
    assert session.uid is not None
    server.channels.create("room").add(session.uid, session.frontend_id)
    return place(server)


@app.handler("chat.room.say")
async def say(msg: Said, server: Server) -> dict[str, Any]:
    """Say something to the room of this server."""
    server.channels.create("room").push("onSaid", {"text": msg.text})
    return place(server)
