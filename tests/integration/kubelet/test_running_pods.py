"""What changes in a pod that runs (ephemeral containers, resize), and what holds a pod back before it does."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from api.models import core_v1, meta_v1
from client.client import PatchType
from machinery.errors import Conflict, StatusError
from proto.cri.v1 import cri_pb2 as cri
from tests.integration.kubelet.conftest import FOREVER, Site, main

DEBUGGER = {"name": "debugger", "image": "busybox", "command": FOREVER, "targetContainerName": "main"}


async def patched(site: Site, name: str, subresource: str, spec: dict[str, Any]) -> None:
    await site.client.patch(
        core_v1.Pod, name, {"spec": spec}, "default", type=PatchType.STRATEGIC, subresource=subresource
    )


async def replaced(site: Site, change: Callable[[core_v1.Pod], None]) -> None:
    """Read, change, write to `…/ephemeralcontainers`; again when the kubelet's status came in between."""
    while True:
        pod = await site.client.get(core_v1.Pod, "web", "default")
        change(pod)
        try:
            await site.client.update(pod, subresource="ephemeralcontainers")
        except Conflict:
            continue
        return


def added(pod: core_v1.Pod) -> core_v1.ContainerStatus | None:
    found = pod.status.ephemeralContainerStatuses if pod.status else None
    return found[0] if found else None


@pytest.mark.conformance(
    "[sig-node] Ephemeral Containers [NodeConformance] will start an ephemeral container in an existing pod"
    " [Conformance]"
)
async def test_an_ephemeral_container_starts_in_a_running_pod(site: Site) -> None:
    await site.create("web", {"command": FOREVER})
    await site.phase("web", "Running")
    await patched(site, "web", "ephemeralcontainers", {"ephemeralContainers": [DEBUGGER]})

    def seen(pod: core_v1.Pod) -> bool:
        status = added(pod)
        return bool(status and status.state and status.state.running)

    await site.pod("web", "debugger runs", seen)
    made = {each.status.metadata.name: each for each in site.containers("web")}
    namespaces = made["debugger"].config.linux.security_context.namespace_options
    assert (namespaces.pid, namespaces.target_id) == (cri.TARGET, made["main"].status.id)
    site.runtime.finish(made["debugger"].status.id, 0)
    pod = await site.pod(
        "web", "debugger ended", lambda pod: (s := added(pod)) is not None and s.state and s.state.terminated
    )
    assert pod.status is not None and pod.status.phase == "Running"


@pytest.mark.conformance(
    "[sig-node] Ephemeral Containers [NodeConformance] should update the ephemeral containers in an existing pod"
    " [Conformance]"
)
async def test_more_ephemeral_containers_may_be_added_none_taken_away(site: Site) -> None:
    await site.create("web", {"command": FOREVER})
    await site.phase("web", "Running")
    await patched(site, "web", "ephemeralcontainers", {"ephemeralContainers": [DEBUGGER]})

    def add(pod: core_v1.Pod) -> None:
        assert pod.spec is not None and pod.spec.ephemeralContainers
        pod.spec.ephemeralContainers.append(msgspec.structs.replace(pod.spec.ephemeralContainers[0], name="second"))

    await replaced(site, add)

    def both(pod: core_v1.Pod) -> bool:
        found = (pod.status.ephemeralContainerStatuses if pod.status else None) or []
        return [each.name for each in found if each.state and each.state.running] == ["debugger", "second"]

    await site.pod("web", "both run", both)

    def take(pod: core_v1.Pod) -> None:
        assert pod.spec is not None and pod.spec.ephemeralContainers
        pod.spec.ephemeralContainers.pop()

    with pytest.raises(StatusError, match="existing ephemeral containers"):
        await replaced(site, take)


async def test_an_ephemeral_container_needs_a_running_target(site: Site) -> None:
    await site.create("web", {"command": FOREVER}, {"name": "other", "command": FOREVER}, restartPolicy="Never")
    await site.phase("web", "Running")
    target = next(each for each in site.containers("web") if each.status.metadata.name == "main")
    site.runtime.finish(target.status.id, 0)
    await site.pod("web", "main ended", lambda pod: (state := main(pod).state) is not None and state.terminated)
    await patched(site, "web", "ephemeralcontainers", {"ephemeralContainers": [DEBUGGER]})

    def seen(pod: core_v1.Pod) -> bool:
        status = added(pod)
        waiting = status.state.waiting if status and status.state else None
        return waiting is not None and (waiting.reason, waiting.message) == (
            "CreateContainerConfigError",
            "unable to find target container main",
        )

    await site.pod("web", "the debugger waits", seen)


async def test_a_resize_reaches_the_runtime_without_a_restart(site: Site) -> None:
    small = {"requests": {"cpu": "100m"}, "limits": {"cpu": "200m"}}
    large = {"requests": {"cpu": "200m"}, "limits": {"cpu": "400m"}}
    await site.create("web", {"command": FOREVER, "resources": small})
    before = main(await site.phase("web", "Running"))
    assert before.resources is not None and before.resources.limits == {"cpu": "200m"}
    await patched(site, "web", "resize", {"containers": [{"name": "main", "resources": large}]})

    def done(pod: core_v1.Pod) -> bool:
        held = main(pod).resources
        return held is not None and held.limits == {"cpu": "400m"}

    pod = await site.pod("web", "resized", done)
    assert (main(pod).containerID, main(pod).restartCount) == (before.containerID, 0)
    assert main(pod).allocatedResources == {"cpu": "200m"}
    update = next(request for verb, request in site.runtime.calls if verb == "UpdateContainerResources")
    assert (update.linux.cpu_quota, update.linux.cpu_shares) == (40_000, 204)
    reasons = [reason for reason, _ in await site.events("web")]
    assert {"ResizeStarted", "ResizeCompleted"} <= set(reasons)
    assert not [each.type for each in (pod.status.conditions or ()) if "Resize" in each.type] if pod.status else False


async def test_a_resize_beyond_the_node_is_infeasible(site: Site) -> None:
    await site.create("web", {"command": FOREVER, "resources": {"requests": {"cpu": "100m"}}})
    await site.phase("web", "Running")
    asked = {"containers": [{"name": "main", "resources": {"requests": {"cpu": "1000"}}}]}
    await patched(site, "web", "resize", asked)

    def told(pod: core_v1.Pod) -> bool:
        found = {each.type: each for each in (pod.status.conditions if pod.status else None) or ()}
        pending = found.get("PodResizePending")
        return pending is not None and pending.reason == "Infeasible"

    pod = await site.pod("web", "infeasible", told)
    resources = main(pod).resources
    assert resources is not None and resources.requests == {"cpu": "100m"}


async def test_a_volume_that_is_missing_keeps_the_pod_from_getting_a_sandbox(site: Site) -> None:
    volumes = [{"name": "v", "configMap": {"name": "late"}}]
    mounted = {"command": FOREVER, "volumeMounts": [{"name": "v", "mountPath": "/v"}]}
    await site.create("careless", {"command": FOREVER}, volumes=volumes)
    await site.phase("careless", "Running")  # what no container mounts is missed by nobody
    await site.create("web", mounted, volumes=volumes)

    async def seen() -> bool:
        return any(reason == "FailedMount" for reason, _ in await site.events("web"))

    from tests.integration.kubelet.conftest import until

    await until(seen, "FailedMount")
    assert len([verb for verb, _ in site.runtime.calls if verb == "RunPodSandbox"]) == 1
    await site.client.create(core_v1.ConfigMap(metadata=meta_v1.ObjectMeta(name="late", namespace="default")))
    await site.phase("web", "Running")


@pytest.mark.conformance(
    "[sig-node] Variable Expansion should verify that a failing subpath expansion can be modified during the lifecycle"
    " of a container [Slow] [Conformance]"
)
async def test_a_sub_path_without_its_variable_waits_and_may_be_mended(fast_site: Site) -> None:
    site = fast_site
    field = {"fieldRef": {"fieldPath": "metadata.annotations['mysubpath']"}}
    mount = {"name": "v", "mountPath": "/v", "subPathExpr": "$(ANNOTATION)/$(POD_NAME)"}
    env = [
        {"name": "POD_NAME", "value": "foo"},
        {"name": "ANNOTATION", "valueFrom": field},
    ]
    await site.create(
        "web",
        {"command": FOREVER, "env": env, "volumeMounts": [mount]},
        volumes=[{"name": "v", "emptyDir": {}}],
        metadata={"annotations": {"notmysubpath": "x"}},
    )
    status = await site.waiting("web", "CreateContainerConfigError")
    assert status.state and status.state.waiting
    assert status.state.waiting.message == 'missing value for "ANNOTATION"'
    await site.client.patch(core_v1.Pod, "web", {"metadata": {"annotations": {"mysubpath": "mypath"}}}, "default")
    await site.phase("web", "Running")


@pytest.mark.conformance(
    "[sig-node] Variable Expansion should fail substituting values in a volume subpath with backticks [Conformance]",
    "[sig-node] Variable Expansion should fail substituting values in a volume subpath with absolute path"
    " [Conformance]",
)
@pytest.mark.parametrize(
    ("value", "why"),
    [("..", "unable to provision SubPath `..`"), ("/tmp", "error SubPath `/tmp` must not be an absolute path")],
)
async def test_a_sub_path_that_leads_out_is_refused(site: Site, value: str, why: str) -> None:
    mount = {"name": "v", "mountPath": "/v", "subPathExpr": "$(POD_NAME)"}
    env = [{"name": "POD_NAME", "value": value}]
    await site.create(
        "web", {"command": FOREVER, "env": env, "volumeMounts": [mount]}, volumes=[{"name": "v", "emptyDir": {}}]
    )
    status = await site.waiting("web", "CreateContainerConfigError")
    assert status.state and status.state.waiting and why in (status.state.waiting.message or "")


async def test_pulls_use_the_pods_pull_secrets(site: Site) -> None:
    site.runtime.add_image("registry.example.com/private:1", present=False)
    auths = {"auths": {"registry.example.com": {"username": "robot", "password": "secret"}}}
    data = {".dockerconfigjson": base64.b64encode(json.dumps(auths).encode()).decode()}
    await site.client.create(
        core_v1.Secret(
            metadata=meta_v1.ObjectMeta(name="pull", namespace="default"),
            type="kubernetes.io/dockerconfigjson",
            data=data,
        )
    )
    await site.create(
        "web",
        {"command": FOREVER, "image": "registry.example.com/private:1"},
        imagePullSecrets=[{"name": "pull"}, {"name": "missing"}],
    )
    status = main(await site.phase("web", "Running"))
    pull = next(request for verb, request in site.runtime.calls if verb == "PullImage")
    assert (pull.auth.username, pull.auth.password) == ("robot", "secret")
    assert status.image == "registry.example.com/private:1"
    told = dict(await site.events("web"))
    assert told["FailedToRetrieveImagePullSecret"] == (
        "Unable to retrieve some image pull secrets (missing); attempting to pull the image may not succeed."
    )


async def test_an_ephemeral_container_may_be_the_first_to_use_a_volume(site: Site) -> None:
    data = core_v1.ConfigMap(metadata=meta_v1.ObjectMeta(name="late", namespace="default"), data={"k": "v"})
    await site.client.create(data)
    await site.create("web", {"command": FOREVER}, volumes=[{"name": "v", "configMap": {"name": "late"}}])
    pod = await site.phase("web", "Running")
    assert pod.metadata is not None
    folder = site.folder / "kubelet" / "pods" / (pod.metadata.uid or "") / "volumes" / "kubernetes.io~configmap" / "v"
    assert not folder.exists()
    mounts = [{"name": "v", "mountPath": "/v"}]
    await patched(site, "web", "ephemeralcontainers", {"ephemeralContainers": [{**DEBUGGER, "volumeMounts": mounts}]})

    def started(pod: core_v1.Pod) -> bool:
        found = (pod.status.ephemeralContainerStatuses if pod.status else None) or []
        return bool(found and found[0].containerID)

    await site.pod("web", "the debugger", started)
    assert (folder / "k").read_text() == "v"
