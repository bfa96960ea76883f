"""Which processes a cluster has, and that every component understands the flags it is given."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli import processes
from cli.layout import ClusterConfig, ClusterPaths, NodeConfig

PATHS = ClusterPaths(Path("/state/demo"))
NODE = NodeConfig("worker-1", 1)


def names(config: ClusterConfig) -> list[str]:
    return [spec.name for spec in processes.control_plane(config, PATHS, "/bin/etcd")]


@pytest.mark.parametrize(
    ("only", "expected"),
    [
        pytest.param(
            [],
            [
                *("etcd", "apiserver", "scheduler", "controller-manager", "metrics-server", "cloud"),
                *("cluster-autoscaler", "kube-proxy"),
            ],
            id="all",
        ),
        pytest.param(["apiserver"], ["etcd", "apiserver"], id="API tests"),
        pytest.param(["apiserver", "scheduler"], ["etcd", "apiserver", "scheduler"], id="some"),
    ],
)
def test_only(only: list[str], expected: list[str]) -> None:
    assert names(ClusterConfig(name="demo", index=0, only=only)) == expected


def test_a_killed_kubelet_is_not_restarted_but_its_runtime_is() -> None:
    specs = processes.worker(ClusterConfig(name="demo", index=0, nodes=[NODE]), PATHS, NODE, "nanokube/demo/worker-1")
    assert {spec.component: spec.restart for spec in specs} == {"runtime": True, "kubelet": False, "kube-proxy": True}


def test_machines_are_told_the_underlay_address_of_the_api_server() -> None:
    config = ClusterConfig(name="demo", index=2, nodes=[NODE])
    kubelet = processes.worker(config, PATHS, NODE, "x")[1]
    assert "--api-server=10.250.2.1:7445" in kubelet.argv
    apiserver = processes.control_plane(config, PATHS, "/bin/etcd")[1]
    assert {"--bind=127.0.0.1:6445", "--bind=10.250.2.1:6445"} <= set(apiserver.argv)


@pytest.mark.parametrize(
    ("servers", "stub_only"),
    [
        pytest.param("nameserver 192.0.2.53\n", False, id="a real server"),
        pytest.param("nameserver 127.0.0.53\noptions edns0\n", True, id="the stub of systemd-resolved"),
        pytest.param("", False, id="none"),
    ],
)
def test_the_resolver_that_machines_can_reach(tmp_path: Path, servers: str, stub_only: bool) -> None:
    for file, text in (("etc/resolv.conf", servers), ("run/systemd/resolve/resolv.conf", "nameserver 192.0.2.53\n")):
        (tmp_path / file).parent.mkdir(parents=True)
        (tmp_path / file).write_text(text)
    expected = "run/systemd/resolve/resolv.conf" if stub_only else "etc/resolv.conf"
    assert processes.resolver(tmp_path) == tmp_path / expected
