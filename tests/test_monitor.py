"""What a server's monitor reads for whoever publishes it, and what the Grafana file charts of it."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from running import ROOT
from support_handlers import elapse, virtual
from test_handlers_meters import counted

from actors.metrics import COMMON
from actors.monitor import INTERVAL, METRICS, Kind, Monitor, Reading
from handlers.kit import Kit
from handlers.members import Member

KNOWN = {metric.name: metric for metric in METRICS}
EXPORTED = {f"ray_{metric.name}{'_total' * (metric.kind is Kind.COUNTER)}": metric for metric in METRICS}
"""The metrics by the names that Ray gives them for Prometheus."""
LINK = {"peer": "chat-1", "queued_bytes": 0, "calls": 3, "carriers": 4, "entries": 9, "refused": 2}


class Published:
    """A sink that keeps what it got, and fails where it is told to."""

    def __init__(self, *, broken: bool = False) -> None:
        self.broken = broken
        self.batches: list[list[Reading]] = []

    async def publish(self, readings: list[Reading]) -> None:
        self.batches.append(readings)
        if self.broken:
            raise RuntimeError("nobody listens")


def monitor_of(kit: Kit, server_id: str, sink: Published) -> Monitor:
    member = Member(id=server_id, type=server_id.partition("-")[0], incarnation=7, frontend="connector" in server_id)
    node = kit.nodes[server_id]
    return Monitor(node, member, connections=lambda: 5, crowded_out=lambda: 2, links=lambda: [LINK], sink=sink)


async def played(kit: Kit) -> None:
    client = await kit.connect("connector-1")
    await client.request("connector.entry.enter", {"uid": "ann"})
    await client.request("chat.talk.say", {"text": "hi"})
    await client.request("chat.talk.say", {"code": 418})
    await kit.settle()


@virtual
async def test_a_server_is_read_once_an_interval_whatever_it_has_to_do_and_every_reading_is_a_known_metrics() -> None:
    async with Kit(counted(), frontends={"connector": 1}, backends={"chat": 1}) as kit:
        sink = Published()
        monitor = monitor_of(kit, "connector-1", sink)
        monitor.start()
        await played(kit)
        assert sink.batches == []
        await elapse(3 * INTERVAL + 1)
        await monitor.stop()
        assert len(sink.batches) == 3
        for reading in sink.batches[-1]:
            assert len(reading.tags) == len(KNOWN[reading.name].tags)
        values = {(reading.name, reading.tags): reading.value for reading in sink.batches[-1]}
        assert values["pummelo_connections", ()] == 5
        assert values["pummelo_crowded_out", ()] == 2
        assert values["pummelo_logged_in", ()] == 1
        assert values["pummelo_requests", ("client", "chat.talk.say", "ok")] == 1
        assert values["pummelo_requests", ("client", "chat.talk.say", "418")] == 1
        assert values["pummelo_request_seconds_bucket", ("client", "+Inf")] == 3
        assert values["pummelo_link_entries", ("chat-1",)] == 9
        assert values["pummelo_link_refused", ("chat-1",)] == 2
        assert values["pummelo_incarnation", ()] == 7


@virtual
async def test_what_cannot_be_published_is_said_once_and_read_on(caplog: pytest.LogCaptureFixture) -> None:
    async with Kit(counted(), frontends={"connector": 1}, backends={"chat": 1}) as kit:
        sink = Published(broken=True)
        monitor = monitor_of(kit, "chat-1", sink)
        monitor.start()
        await played(kit)
        await elapse(INTERVAL + 1)
        assert monitor.describe()["requests_per_second"] == pytest.approx(2 / INTERVAL)
        await elapse(2 * INTERVAL)
        await monitor.stop()
        assert len(sink.batches) == 3
    assert [record.message for record in caplog.records].count(
        "chat-1: the metrics cannot be published; this is not said again"
    ) == 1


def panels() -> Iterator[tuple[str, str]]:
    """Yield the title and the expression of everything that the Grafana file charts."""
    dashboard: dict[str, Any] = json.loads((ROOT / "docs" / "grafana.json").read_text(encoding="utf-8"))
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            yield panel["title"], target["expr"]


def test_the_grafana_file_charts_metrics_and_tags_that_there_are_and_leaves_none_out() -> None:
    charted = set()
    for title, expression in panels():
        names = set(re.findall(r"ray_pummelo_\w+", expression))
        assert names, title
        assert names <= EXPORTED.keys(), title
        charted |= names
        tags = {tag for name in names for tag in (*COMMON, *EXPORTED[name].tags)}
        chosen = {tag for group in re.findall(r"\{(.*?)\}", expression) for tag in re.findall(r"(\w+)[=!]", group)}
        kept = {tag for group in re.findall(r"by \((.*?)\)", expression) for tag in group.split(", ")}
        assert chosen | kept <= tags, title
    assert charted == EXPORTED.keys()
