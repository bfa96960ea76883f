"""up and down: side by side, again and again, nothing left behind, clear words when something is wrong."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.nanokube import Cluster, eventually, traces


@pytest.fixture
def small(machine: None, tmp_path: Path) -> Iterator[Cluster]:
    made = Cluster("e2e-small", tmp_path)
    made.nanokube("down")
    yield made
    made.nanokube("down")


def test_down_leaves_nothing(small: Cluster) -> None:
    before = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=True).stdout
    links = set(os.listdir("/sys/class/net"))
    small.nanokube("up", "--workers", "1")
    small.kubectl("create", "deployment", "web", "--image=busybox", "--", "httpd", "-f", "-p", "8080")
    small.kubectl("rollout", "status", "deployment/web", "--timeout=60s")
    assert traces(small)
    small.nanokube("down")
    assert traces(small) == []
    assert subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=True).stdout == before
    assert set(os.listdir("/sys/class/net")) == links


def test_down_cleans_up_after_a_killed_supervisor(small: Cluster) -> None:
    small.nanokube("up", "--workers", "1")
    pid = int((small.root / "run" / "supervisor.pid").read_text().split()[0])
    os.kill(pid, signal.SIGKILL)
    small.nanokube("down")
    assert traces(small) == []


def test_up_takes_over_after_a_killed_supervisor(small: Cluster) -> None:
    small.nanokube("up", "--workers", "1")
    small.kubectl("create", "configmap", "kept")
    pid = int((small.root / "run" / "supervisor.pid").read_text().split()[0])
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: not Path(f"/proc/{pid}").exists(), "the supervisor to be gone")
    small.nanokube("up")
    assert "kept" in small.kubectl("get", "configmaps")
    eventually(lambda: small.ready_nodes() == {"worker-1"}, "the node to be Ready")


def test_only_the_api_server(small: Cluster) -> None:
    small.nanokube("up", "--only", "apiserver")
    assert {entry["component"] for entry in small.processes()} == {"etcd", "apiserver"}
    small.kubectl("create", "configmap", "x")
    assert small.items("nodes") == []


def test_two_clusters_side_by_side(cluster: Cluster, small: Cluster) -> None:
    small.nanokube("up", "--workers", "1")
    small.kubectl("--context", "nanokube-e2e-small", "create", "configmap", "only-here")
    assert "only-here" not in cluster.kubectl("get", "configmaps")
    assert len(cluster.ready_nodes()) == 3


def test_a_taken_port_is_told(small: Cluster) -> None:
    blockers = []
    try:
        for port in range(6443, 6460):
            blocker = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            blocker.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                blocker.bind(("127.0.0.1", port))
                blocker.listen()
            except OSError:
                pass  # another cluster has it
            blockers.append(blocker)
        told = small.fails("up", "--workers", "0")
        assert "is taken by another program" in told.stderr
        assert len(told.stderr.strip().splitlines()) == 1
    finally:
        for blocker in blockers:
            blocker.close()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        pytest.param(["up", "--workers", "-1"], "--workers", id="negative"),
        pytest.param(["up", "--only", "kernel"], "unknown component", id="component"),
        pytest.param(["up", "--config", "/no/such/file"], "No such file", id="file"),
        pytest.param(["up", "--time-scale", "0"], "--time-scale", id="scale"),
        pytest.param(["status"], "no cluster", id="status without a cluster"),
        pytest.param(["node", "kill", "worker-1"], "no cluster", id="node without a cluster"),
    ],
)
def test_bad_input_is_one_clear_line(small: Cluster, arguments: list[str], words: str) -> None:
    told = small.fails(*arguments)
    assert words in told.stderr
    assert "Traceback" not in told.stderr
    assert len(told.stderr.strip().splitlines()) == 1
