"""A game that uses what the chat and the other test game do not, so that each is seen to work from the file on."""

import asyncio
import contextlib
import os
import time
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec

from handlers import (
    Accepted,
    App,
    HandlerError,
    Handshake,
    Refused,
    Reply,
    Request,
    RpcCall,
    Server,
    Session,
    Unavailable,
    filters,
    policies,
    rpc_filters,
)

app = App("features", routes=["onTeam", "onFast"])
app.route_by("dealt", policies.WeightedRoundRobin)
app.route_by("hashed", policies.PomeloHash)
app.route_by("bound", policies.RoundRobin)
app.scheduler("slow", interval=0.4)
app.filter(filters.serial(), "dealt")
app.filter(filters.timeout(0.5), "dealt")
app.filter(filters.time(), "hashed")
app.filter(filters.toobusy(0.7), "hashed")
app.filter(filters.rate_limit(0.01, burst=3), "tight")
app.global_filter(filters.toobusy(10.0), "connector")
app.rpc_filter(rpc_filters.rpc_log(), "connector")
app.rpc_filter(rpc_filters.toobusy(10.0), "connector")


class State:
    """What a server counts."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.forwarded: list[str] = []


class Work(msgspec.Struct):
    """How long to work."""

    seconds: float = 0.0


class Team(msgspec.Struct):
    """A team, and what it is told."""

    team: str
    text: str = ""


def note(server: Server, what: str) -> None:
    """Write down what happened on a server, for the test to read when the server is gone."""
    with Path(server.settings["notes"]).open("a", encoding="utf-8") as notes:
        notes.write(f"{server.id} {what}\n")


# -- life


@app.before_start
def before_start(server: Server) -> None:
    """Make the server's state."""
    server.state = State()
    note(server, "before_start")


@app.on_start
async def on_start(server: Server) -> None:
    """Tell that it starts."""
    note(server, "on_start")


@app.on_all_started
def on_all_started(server: Server) -> None:
    """Tell that all have started."""
    note(server, "on_all_started")


@app.before_stop
def before_stop(server: Server) -> None:
    """Tell that it is to stop."""
    note(server, "before_stop")


@app.before_stop("connector")
async def say_goodbye(server: Server) -> None:
    """Take leave of the clients, with the help of a server that still serves."""
    word = await server.rpc.to("dealt-1").call(last_word)
    server.channels.broadcast("connector", "onGoodbye", {"word": word}, everyone=True)


@app.on_stop
def on_stop(server: Server) -> None:
    """Tell that it stops."""
    note(server, "on_stop")


@app.on_bind
def on_bind(session: Session, server: Server) -> None:
    """Tell who logged in."""
    note(server, f"bound {session.uid}")


@app.on_unbind
def on_unbind(session: Session, server: Server) -> None:
    """Tell who logged out."""
    note(server, f"unbound {session.uid}")


@app.on_close
def on_close(session: Session, reason: str, server: Server) -> None:
    """Tell whose connection ended, and count why."""
    note(server, f"closed {session.uid} {reason}")
    server.state.counts[reason] += 1


@app.cron("* * * * * *", server_id="dealt-2")
async def tick(server: Server) -> None:
    """Tell the time."""
    note(server, f"tick {time.time()}")


# -- the handshake, routing, pushes


@app.handshake
def greet(handshake: Handshake, server: Server) -> Accepted:
    """Turn away clients that are too old, and bind the others to the uid that they give."""
    if handshake.client_type == "ancient":
        raise Refused(501)
    uid = (handshake.user or {}).get("uid")
    return Accepted(user={"server": server.id, "version": handshake.client_version}, uid=uid)


@app.pick_scheduler
def pick_scheduler(route: str, options: Any) -> str | None:
    """Have those wait that may."""
    return "slow" if options == {"may": "wait"} else None


@app.broadcast_filter("team")
def of_team(session: Session, route: str, param: Any) -> bool:
    """Keep the sessions of a team."""
    return bool(session.get("team") == param)


# -- filters and errors


class Gate:
    """A global filter: refuses what is secret, leaves a word for the handler, and notes what was answered."""

    async def before(self, request: Request, server: Server) -> None:
        """Refuse, or leave a word."""
        if request.route == "dealt.info.secret":
            raise PermissionError("a secret")
        request.session["via"] = server.id

    def after(self, request: Request, reply: Reply, server: Server) -> None:
        """Note the route."""
        server.state.forwarded.append(request.route)


app.global_filter(Gate(), "connector")


@app.on_global_error("connector")
def refused(error: Exception, request: Request, server: Server) -> dict[str, Any] | None:
    """Answer what the gate refused."""
    return {"code": 403, "route": request.route} if isinstance(error, PermissionError) else None


@app.on_error("dealt")
def not_found(error: Exception, request: Request, server: Server) -> dict[str, Any] | None:
    """Answer a missing key; another error stays what it is."""
    return {"code": 210, "missing": error.args[0]} if isinstance(error, KeyError) else None


@app.rpc_before("connector")
def redirect(call: RpcCall, server: Server) -> None:
    """Send one call elsewhere, and refuse another."""
    if call.route == "dealt.info.where_called":
        call.server_id = "dealt-2"
    elif call.route == "dealt.info.forbidden":
        raise HandlerError(403, "no such calls from here")


# -- what clients call


@app.handler("connector.entry.logout")
async def logout(session: Session) -> None:
    """Unbind the session."""
    await session.unbind()


@app.handler("connector.entry.join")
async def join(msg: Team, session: Session) -> None:
    """Enter a team."""
    session["team"] = msg.team
    await session.push("team")


@app.handler("connector.entry.forwarded")
async def forwarded(server: Server) -> list[str]:
    """Show the routes that the global after filter saw."""
    return list(server.state.forwarded)


@app.handler("connector.rpc.redirected")
async def redirected(server: Server) -> str:
    """Call one server and be answered by another."""
    return await server.rpc.to("dealt-1").call(where_called)


@app.handler("connector.rpc.forbidden")
async def forbidden(server: Server) -> None:
    """Make a call that a filter refuses."""
    await server.rpc.to("dealt-1").call("dealt.info.forbidden")


@app.handler("connector.rpc.deadline")
async def deadline(server: Server) -> list[float | None]:
    """Show how much time each of two servers in a row has."""
    return [server.rpc.remaining, *await server.rpc.to("dealt-1", timeout=2).call(time_left_twice)]


@app.handler("connector.rpc.retried")
async def retried(msg: dict[str, Any], server: Server) -> int:
    """Call what is unavailable twice."""
    return await server.rpc.to("dealt-1", retries=msg["retries"]).call(third_time_lucky, msg["name"])


@app.handler("connector.rpc.elsewhere")
async def elsewhere(server: Server) -> str:
    """Call what only the second server can do, by a key of the first one."""
    return await server.rpc.by("", retries=1, elsewhere=True).call(only_on_the_second)


@app.handler("limited.entry.echo")
async def echo_limited(msg: dict[str, Any]) -> dict[str, Any]:
    """Answer with the body."""
    return msg


@app.handler("tight.entry.echo")
async def echo_tight(msg: dict[str, Any]) -> dict[str, Any]:
    """Answer with the body."""
    return msg


@app.handler("connector.entry.flood")
@app.handler("tight.entry.flood")
async def flood(server: Server) -> dict[str, int]:
    """Push to everybody here until somebody does not keep up, at a pace at which whoever reads does."""
    for number in range(4000):
        if server.state.counts["slow consumer"]:
            return {"pushed": number}
        server.channels.broadcast(server.type, "onFlood", {"number": number, "text": "x" * 20_000}, everyone=True)
        await asyncio.sleep(0.002)
    return {"pushed": -1}


@app.handler("dealt.info.where")
async def where(session: Session, server: Server) -> dict[str, Any]:
    """Tell which server this is, and the word of the global filter."""
    return {"server": server.id, "via": session.get("via")}


@app.handler("dealt.info.secret")
async def secret() -> str:
    """Tell what nobody may know."""
    return "the secret"


@app.handler("dealt.info.missing")
async def missing() -> Any:
    """Look for what is not there."""
    return dict[str, str]()["key"]


@app.handler("dealt.info.client")
async def client_info(session: Session, server: Server) -> dict[str, Any]:
    """Tell what this server can learn of a client and its frontend."""
    return {
        "address": await server.sessions.address(session.frontend_id, session.id),
        "gone": await server.sessions.address(session.frontend_id, session.id + 1000),
        "count": await server.sessions.count(session.frontend_id),
    }


@app.handler("dealt.work.sleep")
async def sleep_limited(msg: Work) -> None:
    """Work for longer than the filter allows."""
    await asyncio.sleep(msg.seconds)


@app.handler("dealt.work.overlap", concurrent=True)
async def overlap(server: Server) -> dict[str, int]:
    """Tell how many run at once."""
    server.state.counts["running"] += 1
    await asyncio.sleep(0.05)
    running = server.state.counts["running"]
    server.state.counts["running"] -= 1
    return {"running": running}


@app.handler("dealt.push.both")
async def push_both(session: Session, server: Server) -> None:
    """Push what may wait before what may not."""
    assert session.uid is not None
    to = [(session.uid, session.frontend_id)]
    for number in (1, 2):
        server.channels.push_to(to, "onSlow", {"number": number}, options={"may": "wait"})
    server.channels.push_to(to, "onFast", {})


@app.handler("dealt.push.team")
async def push_team(msg: Team, server: Server) -> dict[str, Any]:
    """Tell a team."""
    body = {"text": msg.text}
    failed = await server.channels.broadcast_confirmed(
        "connector", "onTeam", body, everyone=True, filter="team", param=msg.team
    )
    return {"failed": failed}


@app.handler("bound.info.cpus")
async def cpus(server: Server) -> dict[str, Any]:
    """Tell on which CPUs each of this server's threads may run."""
    threads = []
    for thread in os.listdir("/proc/self/task"):
        with contextlib.suppress(ProcessLookupError):  # it has ended meanwhile
            threads.append(sorted(os.sched_getaffinity(int(thread))))
    return {"server": server.id, "threads": threads}


@app.handler("hashed.info.where")
async def where_hashed(server: Server) -> dict[str, str]:
    """Tell which server this is."""
    return {"server": server.id}


@app.handler("hashed.work.sleep")
async def sleep(msg: Work) -> dict[str, float]:
    """Work."""
    await asyncio.sleep(msg.seconds)
    return {"seconds": msg.seconds}


@app.handler("hashed.work.block")
async def block(msg: Work) -> None:
    """Do what no handler may."""
    time.sleep(msg.seconds)  # noqa: ASYNC251


# -- what servers call


@app.remote("dealt.info.last_word")
async def last_word() -> str:
    """Return the last word."""
    return "farewell"


@app.remote("dealt.info.where_called")
async def where_called(server: Server) -> str:
    """Tell which server this is."""
    return server.id


@app.remote("dealt.info.time_left_twice")
async def time_left_twice(server: Server) -> list[float | None]:
    """Tell how much time is left here and on the next server."""
    await asyncio.sleep(0.1)
    return [server.rpc.remaining, await server.rpc.to("hashed-1").call(time_left)]


@app.remote("hashed.info.time_left")
async def time_left(server: Server) -> float | None:
    """Tell how much time is left."""
    return server.rpc.remaining


@app.remote("dealt.info.third_time_lucky")
async def third_time_lucky(server: Server, name: str) -> int:
    """Fail twice for each name."""
    server.state.counts[name] += 1
    if server.state.counts[name] < 3:
        raise Unavailable("not yet")
    return int(server.state.counts[name])


@app.remote("hashed.info.only_on_the_second")
async def only_on_the_second(server: Server) -> str:
    """Do what the first server cannot."""
    if server.id == "hashed-1":
        raise Unavailable("not here")
    return server.id


# -- a plugin


def motto(app: App, *, text: str) -> None:
    """Bring a route that answers with a text: a plugin."""

    @app.handler("dealt.plugin.motto")
    async def answer() -> dict[str, str]:
        return {"motto": text}


app.use(motto, text="pomelos are large")
