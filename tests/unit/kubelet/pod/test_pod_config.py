"""CRI messages of a pod."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from api.models import core_v1
from kubelet import records
from kubelet.pod.config import ConfigError, MountPlan, NodeFacts, container_config, container_hash, sandbox_config
from kubelet.records import ContainerUser, container_record
from proto.cri.v1 import cri_pb2 as cri

NODE = NodeFacts("n", "10.0.0.1", Path("/root"), Path("/logs"), cgroup_root="m", memory=2 << 30)


def make(container: dict[str, Any] | None = None, **spec: Any) -> core_v1.Pod:
    raw = {
        "metadata": {"name": "web", "namespace": "ns", "uid": "u", "labels": {"app": "web"}},
        "spec": {"containers": [{"name": "main", "image": "busybox", **(container or {})}], **spec},
    }
    return msgspec.convert(raw, core_v1.Pod)


def configure(pod: core_v1.Pod, **more: Any) -> cri.ContainerConfig:
    assert pod.spec is not None
    return container_config(
        pod, pod.spec.containers[0], NODE, attempt=3, image_ref="sha256:1", environment={"A": "1"}, mounts=(), **more
    )


def test_labels_by_which_a_pod_is_found_again() -> None:
    config = sandbox_config(make(), NODE, 2)
    assert config.labels == {
        "app": "web",
        "io.kubernetes.pod.name": "web",
        "io.kubernetes.pod.namespace": "ns",
        "io.kubernetes.pod.uid": "u",
    }
    assert (config.metadata.attempt, config.log_directory) == (2, "/logs/ns_web_u")
    assert config.linux.cgroup_parent == "/m/kubepods/besteffort/podu"
    assert config.hostname == "web"


def test_what_a_container_says_comes_back_as_its_record() -> None:
    config = configure(make(), termination_file="/t")
    status = cri.ContainerStatus(
        id="c",
        metadata=config.metadata,
        state=cri.CONTAINER_RUNNING,
        image=cri.ImageSpec(image="docker.io/library/busybox:latest", user_specified_image="busybox"),
        annotations=config.annotations,
        user=cri.ContainerUser(linux=cri.LinuxContainerUser(uid=7, gid=8, supplemental_groups=[8, 9])),
    )
    record = container_record(status, "s")
    assert (record.attempt, record.termination_path, record.sandbox_id) == (3, "/t", "s")
    assert (record.image, record.user) == ("docker.io/library/busybox:latest", ContainerUser(7, 8, (8, 9)))
    pod = make()
    assert pod.spec is not None and record.hash == container_hash(pod.spec.containers[0])


def test_commands_are_expanded_by_the_environment() -> None:
    config = configure(make({"command": ["echo", "$(A)"], "args": ["$$(A)"]}))
    assert (list(config.command), list(config.args)) == (["echo", "1"], ["$(A)"])


def test_namespaces_follow_the_spec() -> None:
    options = sandbox_config(make(hostNetwork=True, hostPID=True), NODE, 0).linux.security_context.namespace_options
    assert (options.network, options.pid, options.ipc) == (cri.NODE, cri.NODE, cri.POD)


@pytest.mark.parametrize(
    ("security", "image_user", "message"),
    [
        pytest.param({"runAsUser": 0}, None, "container's runAsUser breaks non-root policy", id="user-zero"),
        pytest.param({}, 0, "container has runAsNonRoot and image will run as root", id="image-root"),
    ],
)
def test_non_root_is_enforced(security: dict[str, Any], image_user: int | None, message: str) -> None:
    pod = make({"securityContext": {"runAsNonRoot": True, **security}})
    with pytest.raises(ConfigError, match=message):
        configure(pod, image_user=image_user)


def test_mounts_and_security() -> None:
    pod = make({"securityContext": {"readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}})
    assert pod.spec is not None
    config = container_config(
        pod,
        pod.spec.containers[0],
        NODE,
        attempt=0,
        image_ref="x",
        environment={},
        mounts=[MountPlan("/a", "/b", True, "HostToContainer")],
    )
    assert config.mounts[0].readonly and config.mounts[0].propagation == cri.PROPAGATION_HOST_TO_CONTAINER
    context = config.linux.security_context
    assert context.readonly_rootfs and list(context.capabilities.drop_capabilities) == ["ALL"]
    assert "/proc/kcore" in context.masked_paths
    assert records.CONTAINER_NAME in config.labels
