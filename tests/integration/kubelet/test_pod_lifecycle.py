"""Pods from binding to removal: what the user sees in status and events."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from api.models import core_v1, meta_v1
from tests.integration.kubelet.conftest import FOREVER, Site, condition, main, until


async def test_a_bound_pod_runs_and_is_ready(site: Site) -> None:
    await site.create("web", {"command": FOREVER})
    pod = await site.phase("web", "Running")
    assert pod.status is not None and pod.status.podIP == "10.88.0.2" and pod.status.hostIP == "127.0.0.1"
    status = main(pod)
    assert status.ready and status.started and status.restartCount == 0
    assert (status.containerID or "").startswith("nanokube-fake://")
    for kind in ("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"):
        assert condition(pod, kind) == ("True", "")
    assert [reason for reason, _ in await site.events("web")] == ["Pulled", "Created", "Started"]


async def test_deletion_stops_the_container_and_removes_everything(site: Site) -> None:
    await site.create("web", {"command": FOREVER}, volumes=[{"name": "scratch", "emptyDir": {}}])
    await site.phase("web", "Running")
    await site.client.delete(core_v1.Pod, "web", "default")
    await site.gone("web")
    assert not site.runtime.containers and not site.runtime.sandboxes
    assert not list((site.folder / "kubelet" / "pods").iterdir()) and not list((site.folder / "logs").iterdir())
    assert ("Killing", "Stopping container main") in await site.events("web")


async def test_a_pod_deleted_by_force_is_taken_down(site: Site) -> None:
    await site.create("web", {"command": FOREVER})
    await site.phase("web", "Running")
    await site.client.delete(core_v1.Pod, "web", "default", grace_period_seconds=0)

    async def empty() -> bool:
        return not site.runtime.sandboxes and site.kubelet.pods is not None and not site.kubelet.pods.workers()

    await until(empty, "removal from the node")


@pytest.mark.parametrize(
    ("policy", "code", "phase", "reason"),
    [
        pytest.param("Never", 0, "Succeeded", "Completed", id="completed"),
        pytest.param("Never", 3, "Failed", "Error", id="error"),
        pytest.param("OnFailure", 0, "Succeeded", "Completed", id="onfailure-completed"),
    ],
)
async def test_a_pod_that_ends(site: Site, policy: str, code: int, phase: str, reason: str) -> None:
    await site.create("job", {"command": ["sh", "-c", f"exit {code}"]}, restartPolicy=policy)
    pod = await site.phase("job", phase)
    ended = main(pod).state.terminated  # type: ignore[union-attr]
    assert ended is not None and (ended.exitCode, ended.reason) == (code, reason)
    assert condition(pod, "Ready") == ("False", "PodCompleted" if code == 0 else "PodFailed")


async def test_crash_loop(fast_site: Site) -> None:
    site = fast_site
    await site.create("crash", {"command": ["sh", "-c", "exit 1"]})
    status = await site.waiting("crash", "CrashLoopBackOff")
    assert status.lastState is not None and status.lastState.terminated is not None
    assert status.lastState.terminated.exitCode == 1
    pod = await site.pod("crash", "3 restarts", lambda pod: main(pod).restartCount >= 3)
    assert pod.status is not None and pod.status.phase == "Running"
    assert len(site.containers("crash")) <= 2, "only the last dead container is kept"
    reasons = [reason for reason, _ in await site.events("crash")]
    assert "BackOff" in reasons


async def test_out_of_memory(site: Site) -> None:
    await site.create("fat", {"command": FOREVER}, restartPolicy="Never")
    await site.phase("fat", "Running")
    site.runtime.oom(site.containers("fat")[0].status.id)
    ended = main(await site.phase("fat", "Failed")).state.terminated  # type: ignore[union-attr]
    assert ended is not None and (ended.reason, ended.exitCode) == ("OOMKilled", 137)


async def test_init_containers_come_first(site: Site) -> None:
    await site.create(
        "app",
        {"command": FOREVER},
        initContainers=[{"name": "first", "image": "busybox", "imagePullPolicy": "IfNotPresent", "command": FOREVER}],
    )

    def init_runs(pod: core_v1.Pod) -> bool:
        statuses = pod.status.initContainerStatuses if pod.status else None
        return bool(statuses and statuses[0].state and statuses[0].state.running)

    pod = await site.pod("app", "init running", init_runs)
    assert pod.status is not None and pod.status.phase == "Pending"
    assert main(pod).state.waiting.reason == "PodInitializing"  # type: ignore[union-attr]
    assert condition(pod, "Initialized") == ("False", "ContainersNotInitialized")
    site.runtime.finish(site.containers("app")[0].status.id, 0)
    await site.phase("app", "Running")


FAILURES: list[Any] = [
    pytest.param({"image": "nowhere/none:1"}, "ErrImagePull", "Failed", id="ErrImagePull"),
    pytest.param(
        {"image": "nowhere/none:1", "imagePullPolicy": "Never"},
        "ErrImageNeverPull",
        "ErrImageNeverPull",
        id="ErrImageNeverPull",
    ),
    pytest.param({"command": ["nosuch"]}, "RunContainerError", "Failed", id="RunContainerError"),
    pytest.param(
        {"env": [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "missing", "key": "a"}}}]},
        "CreateContainerConfigError",
        "Failed",
        id="CreateContainerConfigError",
    ),
]


@pytest.mark.parametrize(("container", "reason", "event"), FAILURES)
async def test_what_cannot_run_says_why(site: Site, container: dict[str, Any], reason: str, event: str) -> None:
    await site.create("bad", container)
    status = await site.waiting("bad", reason)
    assert status.state is not None and status.state.waiting is not None and status.state.waiting.message
    assert event in [told for told, _ in await site.events("bad")]


async def test_an_image_that_appears_later_is_pulled(fast_site: Site) -> None:
    site = fast_site
    await site.create("late", {"image": "later:1", "command": FOREVER})
    await site.waiting("late", "ImagePullBackOff")
    site.runtime.add_image("later:1", present=False)
    await site.phase("late", "Running")
    messages = [message for _, message in await site.events("late")]
    assert any(message.startswith('Successfully pulled image "later:1" in ') for message in messages)


async def test_a_missing_config_map_holds_the_pod_until_it_is_there(fast_site: Site) -> None:
    site = fast_site
    await site.create(
        "vol",
        {"command": FOREVER, "volumeMounts": [{"name": "cm", "mountPath": "/cm"}]},
        volumes=[{"name": "cm", "configMap": {"name": "late"}}],
    )

    async def told() -> bool:
        text = 'MountVolume.SetUp failed for volume "cm" : configmap "late" not found'
        return ("FailedMount", text) in await site.events("vol")

    await until(told, "FailedMount")
    meta = meta_v1.ObjectMeta(name="late", namespace="default")
    await site.client.create(core_v1.ConfigMap(metadata=meta, data={"a": "1"}))
    await site.phase("vol", "Running")
    mount = next(m for m in site.containers("vol")[0].config.mounts if m.container_path == "/cm")
    assert Path(mount.host_path, "a").read_text() == "1"


async def test_a_changed_label_reaches_its_file_at_once(site: Site) -> None:
    item = {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}
    await site.create(
        "vol",
        {"command": FOREVER, "volumeMounts": [{"name": "d", "mountPath": "/d"}]},
        volumes=[{"name": "d", "downwardAPI": {"items": [item]}}],
    )
    await site.phase("vol", "Running")
    mount = next(m for m in site.containers("vol")[0].config.mounts if m.container_path == "/d")
    await site.client.patch(core_v1.Pod, "vol", {"metadata": {"labels": {"tier": "front"}}}, "default")

    async def written() -> bool:
        return 'tier="front"' in Path(mount.host_path, "labels").read_text()

    await until(written, "the label in the file")  # long before the next round


async def test_admission_at_the_node(site: Site) -> None:
    await site.create("big", {"resources": {"requests": {"cpu": "3"}}})
    pod = await site.phase("big", "Failed")
    assert pod.status is not None and pod.status.reason == "OutOfcpu"
    await site.create("elsewhere", {}, nodeSelector={"disk": "none"})
    pod = await site.phase("elsewhere", "Failed")
    assert pod.status is not None and pod.status.reason == "NodeAffinity"
    assert not site.runtime.sandboxes


async def test_exec_probes_decide_readiness_and_restarts(fast_site: Site) -> None:
    site = fast_site
    results = {"ready": 1, "live": 0}
    site.runtime.exec_results = lambda _, cmd: (results[cmd[0]], b"", b"")
    await site.create(
        "probed",
        {
            "command": FOREVER,
            "readinessProbe": {"exec": {"command": ["ready"]}, "periodSeconds": 1},
            "livenessProbe": {"exec": {"command": ["live"]}, "periodSeconds": 1},
        },
    )
    pod = await site.phase("probed", "Running")
    assert condition(pod, "Ready") == ("False", "ContainersNotReady")
    results["ready"] = 0
    await site.pod("probed", "ready", lambda pod: main(pod).ready)
    results["live"] = 1
    await site.pod("probed", "restart", lambda pod: main(pod).restartCount >= 1)
    assert ("Killing", "Container main failed liveness probe, will be restarted") in await site.events("probed")


async def test_a_failing_create_is_retried(fast_site: Site) -> None:
    site = fast_site
    site.runtime.fail_next("CreateContainer", "INVALID_ARGUMENT", "no such thing")
    await site.create("again", {"command": FOREVER})
    await site.waiting("again", "CreateContainerError")
    await site.phase("again", "Running")


async def test_a_failing_sandbox_is_retried(fast_site: Site) -> None:
    site = fast_site
    site.runtime.fail_next("RunPodSandbox", "UNKNOWN", "no network")
    await site.create("again", {"command": FOREVER})
    await site.phase("again", "Running")
    assert ("FailedCreatePodSandBox", "Failed to create pod sandbox: no network") in await site.events("again")


async def test_pods_that_want_the_same_image_share_one_pull(site: Site) -> None:
    site.runtime.add_image("shared:1", present=False)
    gate = site.runtime.hold("PullImage")
    for name in ("a", "b", "c"):
        await site.create(name, {"image": "shared:1", "imagePullPolicy": "Always", "command": FOREVER})

    async def asked() -> bool:
        return all([("Pulling", 'Pulling image "shared:1"') in await site.events(name) for name in ("a", "b", "c")])

    await until(asked, "three pods pulling")
    await site.client.delete(core_v1.Pod, "a", "default", grace_period_seconds=0)
    gate.set()
    await site.phase("b", "Running")
    await site.phase("c", "Running")
    assert [verb for verb, _ in site.runtime.calls].count("PullImage") == 1
