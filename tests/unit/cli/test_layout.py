"""Addresses and paths follow from name and index; bad settings are refused with one line."""

from __future__ import annotations

import ipaddress
from pathlib import Path

import pytest

from cli import layout
from cli.errors import CommandError
from cli.layout import ClusterConfig, ClusterPaths, NodeConfig, UpConfig


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NANOKUBE_STATE", str(tmp_path))
    return tmp_path


def test_two_clusters_share_no_address() -> None:
    one, two = (ClusterConfig(name=f"c{index}", index=index) for index in (0, 1))
    networks = [
        ipaddress.IPv4Network(net) for each in (one, two) for net in (each.underlay, each.pod_cidr, each.service_cidr)
    ]
    assert not any(a.overlaps(b) for a in networks for b in networks if a is not b)
    assert {one.rest_port, one.grpc_port}.isdisjoint({two.rest_port, two.grpc_port})


def test_the_config_survives_its_file(state: Path) -> None:
    paths = ClusterPaths.of("demo")
    paths.make()
    config = ClusterConfig(name="demo", index=3, nodes=[NodeConfig("worker-1", 1, memory="1Gi")], time_scale=20)
    layout.save(paths, config)
    assert layout.load(paths) == config
    assert list(layout.clusters()) == [config]
    assert paths.root.stat().st_mode & 0o077 == 0


def test_no_cluster_is_no_error(state: Path) -> None:
    assert layout.load(ClusterPaths.of("demo")) is None


def test_a_damaged_config_is_told(state: Path) -> None:
    paths = ClusterPaths.of("demo")
    paths.make()
    paths.config.write_text("{")
    with pytest.raises(CommandError, match=r"cluster\.json"):
        layout.load(paths)


@pytest.mark.parametrize("name", ["", "A", "-a", "a-", "a" * 21, "a/b", "..", "tools", "a\n"])
def test_bad_names(name: str) -> None:
    with pytest.raises(CommandError, match="cluster name"):
        layout.check_name(name)


@pytest.mark.parametrize(
    ("machine", "word"),
    [
        pytest.param({"maxPods": "many"}, "maxPods", id="no number of pods"),
        pytest.param({"maxPods": "0"}, "maxPods", id="no pods"),
        pytest.param({"maxPods": "1000"}, "maxPods", id="more pods than addresses"),
        pytest.param({"gpu": "1"}, "gpu", id="unknown"),
        pytest.param({"cpu": "x"}, "cpu", id="no quantity"),
        pytest.param({"memory": "0"}, "positive", id="nothing"),
    ],
)
def test_bad_machines(machine: dict[str, layout.Setting], word: str) -> None:
    with pytest.raises(CommandError, match=word):
        UpConfig(machine=machine).check()


@pytest.mark.parametrize("name", ["host", "switch", "supervisor", "control-plane", "init"])
def test_a_node_takes_the_name_of_nothing_else(name: str) -> None:
    """Its namespace is pinned beside the host's and the switch's, its cgroup stands beside the control plane's."""
    with pytest.raises(CommandError, match="reserved"):
        layout.check_name(name, "node name")


def test_an_unknown_log_level_is_told() -> None:
    with pytest.raises(CommandError, match="logLevel"):
        UpConfig(logLevel="loud").check()
