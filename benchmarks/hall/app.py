"""The game that benchmarks/reach.py measures: everybody is in a local channel and in a global one."""

import time
from typing import Any

from handlers import App, Server, Session

app = App("reach-bench", routes=["on"])


@app.handler("connector.entry.enter")
async def enter(msg: dict[str, Any], session: Session, server: Server) -> dict[str, Any]:
    """Bind the session and join both channels."""
    await session.bind(msg["uid"])
    await server.rpc.to("chat-1").call(add, msg["uid"], server.id)
    return {"code": 200}


@app.remote("chat.hall.add")
async def add(server: Server, uid: str, frontend_id: str) -> None:
    """Add a user to both channels."""
    server.channels.create("hall").add(uid, frontend_id)
    server.global_channels.create("hall").add(uid, frontend_id)


@app.handler("chat.hall.say")
async def say(msg: dict[str, Any], server: Server) -> dict[str, Any]:
    """Push to one of the channels some times; returns the seconds until the frontends had written the last."""
    channel: Any = (server.global_channels if msg["everywhere"] else server.channels).create("hall")
    began = time.perf_counter()
    for number in range(msg["times"]):
        await channel.push_confirmed("on", {"number": number, "text": "x" * 50})
    return {"seconds": time.perf_counter() - began}


@app.handler("chat.hall.show")
async def show(server: Server) -> dict[str, Any]:
    """Return how many are in each channel."""
    everywhere = await server.global_channels.create("hall").count()
    return {"members": len(server.channels.create("hall")), "everywhere": everywhere}
