"""Kill every process once: what was acknowledged stays, what was promised comes back."""

from __future__ import annotations

import os
import signal

import pytest

from tests.harness.nanokube import Cluster, eventually

HTTPD = ("--image=busybox", "--", "httpd", "-f", "-p", "8080")


def test_a_killed_kubelet_makes_its_node_not_ready_and_its_pods_move(fast: Cluster) -> None:
    fast.kubectl("create", "deployment", "web", "--replicas=6", *HTTPD)
    fast.kubectl("rollout", "status", "deployment/web", "--timeout=60s")
    victims = {pod["metadata"]["name"] for pod in fast.pods("app=web") if pod["spec"]["nodeName"] == "worker-2"}
    assert victims, "the scheduler spread six pods over three nodes"
    os.kill(fast.pid("kubelet", "worker-2"), signal.SIGKILL)
    eventually(lambda: "worker-2" not in fast.ready_nodes(), "worker-2 to turn NotReady", timeout=20)
    taints = {taint["key"] for taint in fast.get("node", "worker-2")["spec"].get("taints", ())}
    assert "node.kubernetes.io/unreachable" in taints

    def replaced() -> bool:
        good = [pod for pod in fast.running("app=web") if pod["spec"]["nodeName"] != "worker-2"]
        return len(good) == 6

    eventually(replaced, "six pods on the nodes that live", timeout=40)
    # The machine itself lives on: its containers still run until a kubelet comes back and is told.
    assert fast.pid("kubelet", "worker-2") == 0
    fast.nanokube("node", "start", "worker-2")
    eventually(lambda: "worker-2" in fast.ready_nodes(), "worker-2 to come back", timeout=30)
    eventually(
        lambda: not victims & {pod["metadata"]["name"] for pod in fast.pods("app=web")}, "the moved pods to be gone", 40
    )
    fast.kubectl("delete", "deployment", "web")


def test_a_restarted_kubelet_adopts_what_runs(fast: Cluster) -> None:
    fast.kubectl("create", "deployment", "kept", "--replicas=3", *HTTPD)
    fast.kubectl("rollout", "status", "deployment/kept", "--timeout=60s")

    def facts() -> dict[str, tuple[str, int]]:
        return {
            pod["metadata"]["name"]: (
                pod["status"]["containerStatuses"][0]["containerID"],
                pod["status"]["containerStatuses"][0]["restartCount"],
            )
            for pod in fast.running("app=kept")
        }

    before = facts()
    assert len(before) == 3
    for node in ("worker-1", "worker-2", "worker-3"):
        os.kill(fast.pid("kubelet", node), signal.SIGKILL)
        fast.nanokube("node", "start", node)
    eventually(lambda: len(fast.ready_nodes()) == 3, "all nodes Ready")
    eventually(lambda: facts() == before, "the very same containers")
    fast.kubectl("delete", "deployment", "kept")


@pytest.mark.parametrize("component", ["apiserver", "scheduler", "controller-manager", "etcd"])
def test_a_killed_control_plane_process_comes_back_and_loses_nothing(fast: Cluster, component: str) -> None:
    name = f"survives-{component}"
    fast.kubectl("create", "configmap", name, "--from-literal=a=b")
    pid = fast.pid(component)
    os.kill(pid, signal.SIGKILL)

    def back() -> bool:
        return fast.pid(component) not in (0, pid)

    eventually(back, f"{component} to be restarted")
    eventually(lambda: fast.kubectl("get", "configmap", name, check=False).startswith("NAME"), "the write to be there")
    fast.kubectl("create", "deployment", name, *HTTPD)
    fast.kubectl("rollout", "status", f"deployment/{name}", "--timeout=60s")
    fast.kubectl("delete", "deployment", name)
    fast.kubectl("delete", "configmap", name)


@pytest.mark.parametrize("component", ["runtime", "kube-proxy"])
def test_a_killed_node_process_comes_back_and_containers_never_stop(fast: Cluster, component: str) -> None:
    name = f"lives-{component}"
    fast.kubectl("create", "deployment", name, "--replicas=3", *HTTPD)
    fast.kubectl("rollout", "status", f"deployment/{name}", "--timeout=60s")
    before = {pod["status"]["containerStatuses"][0]["containerID"] for pod in fast.running(f"app={name}")}
    pid = fast.pid(component, "worker-1")
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: fast.pid(component, "worker-1") not in (0, pid), f"{component} to be restarted")
    fast.kubectl("scale", f"deployment/{name}", "--replicas=6")
    fast.kubectl("rollout", "status", f"deployment/{name}", "--timeout=60s")
    after = {pod["status"]["containerStatuses"][0]["containerID"] for pod in fast.running(f"app={name}")}
    assert before <= after
    fast.kubectl("delete", "deployment", name)


def test_a_machine_whose_plug_is_pulled_boots_again(fast: Cluster) -> None:
    fast.kubectl("create", "deployment", "plug", "--replicas=3", *HTTPD)
    fast.kubectl("rollout", "status", "deployment/plug", "--timeout=60s")
    fast.nanokube("node", "kill", "worker-3")
    eventually(lambda: "worker-3" not in fast.ready_nodes(), "worker-3 to turn NotReady", timeout=20)
    fast.nanokube("node", "start", "worker-3")
    eventually(lambda: "worker-3" in fast.ready_nodes(), "worker-3 to be Ready again", timeout=30)
    eventually(lambda: len(fast.running("app=plug")) == 3, "three pods", timeout=40)
    fast.kubectl("delete", "deployment", "plug")


def test_a_frozen_machine_is_a_dead_one_until_it_thaws(fast: Cluster) -> None:
    fast.nanokube("node", "freeze", "worker-1")
    eventually(lambda: "worker-1" not in fast.ready_nodes(), "worker-1 to turn NotReady", timeout=20)
    fast.nanokube("node", "start", "worker-1")
    eventually(lambda: "worker-1" in fast.ready_nodes(), "worker-1 to be Ready again", timeout=30)


def test_nodes_come_and_go(fast: Cluster) -> None:
    fast.nanokube("node", "add", "extra", "--cpu", "1", "--memory", "512Mi")
    eventually(lambda: "extra" in fast.ready_nodes(), "the new node to be Ready", timeout=30)
    assert fast.get("node", "extra")["status"]["capacity"]["cpu"] == "1"
    fast.nanokube("node", "remove", "extra")
    assert "extra" not in fast.kubectl("get", "nodes")
