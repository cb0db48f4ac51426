"""cluster.yaml, by Ray's own check, and against what it is for."""

from collections.abc import Iterable
from typing import Any

import pytest
import yaml
from running import ROOT

from actors.config import load_game


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    read: dict[str, Any] = yaml.safe_load((ROOT / "cluster.yaml").read_text(encoding="utf-8"))
    return read


def test_rays_own_check_takes_the_file(document: dict[str, Any]) -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config  # noqa: PLC0415 - it takes a second

    prepared = prepare_config(document)
    validate_config(prepared)
    assert set(prepared["available_node_types"]) == {"head", "worker"}


def test_the_demos_client_ports_are_open_and_rays_own_are_not(document: dict[str, Any]) -> None:
    rules = document["provider"]["security_group"]["IpPermissions"]

    def opened(ports: Iterable[int]) -> set[int]:
        tcp = [range(rule["FromPort"], rule["ToPort"] + 1) for rule in rules if rule["IpProtocol"] == "tcp"]
        return {port for port in ports if any(port in ports for ports in tcp)}

    demo = load_game(ROOT / "examples" / "chat" / "servers.yaml")
    ports = {server.port for server in demo.servers if server.frontend}
    assert opened(ports) == ports
    assert opened((22, 6379, 8076, 8265, 10001)) == set()


def test_every_node_gets_pummelo_and_tells_clients_an_address_that_they_can_reach(document: dict[str, Any]) -> None:
    assert any("pip install pummelo" in command for command in document["setup_commands"])
    for commands in ("head_start_ray_commands", "worker_start_ray_commands"):
        assert "export PUMMELO_ADVERTISE=" in document[commands][-1]
    assert document["worker_start_ray_commands"][-1].endswith("--object-manager-port=8076")
