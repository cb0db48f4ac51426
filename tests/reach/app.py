"""A game for the tests of what reaches over the cluster: clients say what a back server is to do."""

import os
from typing import Any

from handlers import App, Request, Server, Session

app = App("reach", routes=["on", "onPresence"])


@app.handler("connector.entry.login")
async def login(msg: dict[str, Any], session: Session, server: Server) -> dict[str, Any]:
    """Bind the session."""
    await session.bind(msg["uid"])
    return {"server": server.id, "pid": os.getpid()}


@app.handler("single.entry.login")
async def login_single(msg: dict[str, Any], session: Session, server: Server) -> dict[str, Any]:
    """Bind the session, where there may be one."""
    await session.bind(msg["uid"])
    return {"server": server.id, "pid": os.getpid()}


@app.route("back")
def by_wish(request: Request, servers: tuple[str, ...]) -> str:
    """Go to the server that the message names."""
    return str(request.body().get("at", servers[0]))


@app.handler("back.reach.do", concurrent=True)
async def do(msg: dict[str, Any], server: Server) -> dict[str, Any]:
    """Do what the message says."""
    return {"did": await _did(server, msg["what"], msg), "pid": os.getpid()}


async def _did(server: Server, what: str, msg: dict[str, Any]) -> Any:
    channel = server.global_channels.get(msg.get("channel", "room"))
    match what:
        case "where":
            return await server.where(msg["uid"])
        case "online":
            return await server.is_online(msg["uids"])
        case "push":
            return await server.push_to_users(msg["uids"], "on", msg["body"])
        case "kick":
            return await server.kick(msg["uid"], msg["reason"])
        case "add":
            return await channel.add_confirmed(msg["uid"], msg["place"], msg.get("meta"), watch=msg.get("watch", False))
        case "say":
            return await channel.push_confirmed("on", msg["body"])
        case "members":
            return sorted(await channel.members())
        case "count":
            return await channel.count()
    raise ValueError(what)
