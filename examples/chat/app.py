"""The original chat demo of pomelo, with its routes and pushes: a gate, connectors, and chat servers with rooms.

A client asks the gate for a connector, enters a room there, and talks. A room lives on the chat server that its name
hashes to, whichever connectors its members came by. Who is online in all the rooms, on whatever chat servers they are,
is a global channel: everybody in a room is in it, and who asks for it as it enters is told who comes and goes.
"""

from collections.abc import Sequence
from typing import Annotated, Any

import msgspec

from handlers import App, HandlerError, Request, Server, Session, rendezvous

app = App("chat", routes=["onChat", "onAdd", "onLeave", "onPresence"])

EVERYWHERE = "everywhere"
"""The global channel of everybody in a room."""


Name = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]


class QueryEntry(msgspec.Struct):
    """Who asks for a connector."""

    uid: str


class Enter(msgspec.Struct):
    """Who enters which room; ``presence`` asks for ``onPresence``, who is online in all the rooms."""

    username: Name
    rid: Name
    presence: bool = False


class Rooms(dict[str, set[str]]):
    """The uids that each room was told of."""


class Send(msgspec.Struct):
    """What is said, to the room (``*``) or to one user."""

    content: str
    target: str = "*"


@app.route("chat")
def by_room(request: Request, servers: Sequence[str]) -> str:
    """Send everything of a room to the chat server that has it."""
    return rendezvous(request.session.get("rid", ""), tuple(servers))


@app.handler("gate.gateHandler.queryEntry")
async def query_entry(msg: QueryEntry, server: Server) -> dict[str, Any]:
    """Tell a user which connector to use."""
    connector = await server.least_loaded("connector")
    return {"code": 200, "host": connector.host, "port": connector.port}


@app.handler("connector.entryHandler.enter")
async def enter(msg: Enter, session: Session, server: Server) -> dict[str, Any]:
    """Enter a room under a name; answers the names in it. A name already taken is refused."""
    if "*" in msg.username:
        raise HandlerError(400, "a name has no * in it")
    if session.uid is not None:
        raise HandlerError(409, "this connection is in a room already")
    uid = f"{msg.username}*{msg.rid}"
    if await server.sessions.get_by_uid(server.id, uid):
        return {"code": 500, "error": True}
    await session.bind(uid)
    session["rid"] = msg.rid
    await session.push("rid")
    users = None
    try:
        users = await server.rpc.by(session).call(add, uid, server.id, msg.rid)
    finally:
        if users is None:
            await session.unbind()
    if users is None:
        return {"code": 500, "error": True}
    if server.global_channels.available:
        told = {"name": msg.username, "room": msg.rid}
        server.global_channels.get(EVERYWHERE).add(uid, server.id, told, watch=msg.presence)
    return {"code": 200, "users": users}


@app.on_close("connector")
async def user_left(session: Session, reason: str, server: Server) -> None:
    """Take a user whose connection closed out of the room."""
    if session.uid is not None:
        await server.rpc.by(session).call(leave, session.uid, server.id, session["rid"])


@app.on_start("chat")
def watch_rooms(server: Server) -> None:
    """Look after the rooms: a connector that dies takes its users out of them without a word."""
    server.state = Rooms()

    def look() -> None:
        for rid, uids in [(rid, set(uids)) for rid, uids in server.state.items()]:
            for uid in uids:
                tell_if_gone(server, rid, uid)

    server.every(1, look)


@app.remote("chat.chatRemote.add")
async def add(server: Server, uid: str, frontend_id: str, rid: str) -> list[str] | None:
    """Put a user into a room and tell the others; returns everybody's names, None if the name is taken."""
    room = server.channels.create(rid)
    if uid in room:
        return None
    room.push("onAdd", {"user": name(uid)})
    room.add(uid, frontend_id)
    server.state.setdefault(rid, set()).add(uid)
    return [name(member) for member in room.members()]


@app.remote("chat.chatRemote.kick")
async def leave(server: Server, uid: str, frontend_id: str, rid: str) -> None:
    """Take a user out of a room and tell the others."""
    if rid in server.channels:
        server.channels.get(rid).leave(uid, frontend_id)
        tell_if_gone(server, rid, uid)


def tell_if_gone(server: Server, rid: str, uid: str) -> None:
    """Tell a room that a user is not in it any more, once; an empty room ends."""
    room = server.channels.get(rid)
    if uid in room or uid not in server.state.get(rid, ()):
        return
    server.state[rid].remove(uid)
    room.push("onLeave", {"user": name(uid)})
    if not server.state[rid]:
        del server.state[rid]
        room.destroy()


@app.handler("chat.chatHandler.send")
async def send(msg: Send, session: Session, server: Server) -> dict[str, Any]:
    """Say something to the room, or to one user in it."""
    if session.uid is None:
        raise HandlerError(403, "enter a room first")
    rid = session["rid"]
    room = server.channels.get(rid)
    said = {"msg": msg.content, "from": name(session.uid), "target": msg.target}
    if msg.target == "*":
        room.push("onChat", said)
    else:
        uid = f"{msg.target}*{rid}"
        if uid not in room:
            raise HandlerError(404, f"{msg.target} is not in the room")
        server.channels.push_to([(uid, frontend_id) for frontend_id in room.frontends(uid)], "onChat", said)
    return {"code": 200}


def name(uid: str) -> str:
    """Return the user's name from a uid, ``name*room``."""
    return uid.split("*", 1)[0]
