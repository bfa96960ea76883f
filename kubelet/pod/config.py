"""CRI messages for a pod: sandbox and container configuration. Pure; called by `pod.worker`."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from api.models import core_v1
from kubelet import dns, qos, records
from kubelet.env import expand
from proto.cri.v1 import cri_pb2 as cri

MASKED_PATHS = (
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
)
READONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
_PROPAGATION = {
    "None": cri.PROPAGATION_PRIVATE,
    "HostToContainer": cri.PROPAGATION_HOST_TO_CONTAINER,
    "Bidirectional": cri.PROPAGATION_BIDIRECTIONAL,
}


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """What a pod's configuration needs to know of its node."""

    name: str
    ip: str
    root: Path
    log_dir: Path
    cgroup_root: str = ""  # the machine's cgroup; without one the runtime chooses
    cpu_milli: int = 0
    memory: int = 0
    cluster_dns: tuple[str, ...] = ()
    cluster_domain: str = "cluster.local"
    host_resolver: dns.Resolver = field(default_factory=dns.Resolver)

    def pod_dir(self, uid: str) -> Path:
        return self.root / "pods" / uid


@dataclass(frozen=True, slots=True)
class MountPlan:
    """One bind mount of a container."""

    container_path: str
    host_path: str
    readonly: bool = False
    propagation: str = "None"


@dataclass(frozen=True, slots=True)
class DevicePlan:
    """A block volume as a device of a container."""

    container_path: str
    host_path: str
    readonly: bool = False


class ConfigError(Exception):
    """The container cannot be configured as its spec says: CreateContainerConfigError."""


def container_hash(container: core_v1.Container) -> str:
    """Identifies the part of a container's spec whose change demands a restart: its name and image."""
    digest = hashlib.sha256(msgspec.json.encode([container.name, container.image]))
    return digest.hexdigest()[:8]


def log_directory(node: NodeFacts, pod: core_v1.Pod) -> Path:
    meta = pod.metadata
    assert meta is not None
    return node.log_dir / f"{meta.namespace}_{meta.name}_{meta.uid}"


def _identity(pod: core_v1.Pod) -> dict[str, str]:
    meta = pod.metadata
    assert meta is not None
    return {
        records.POD_NAME: meta.name or "",
        records.POD_NAMESPACE: meta.namespace or "",
        records.POD_UID: meta.uid or "",
    }


def _namespaces(spec: core_v1.PodSpec) -> cri.NamespaceOption:
    pid = cri.NODE if spec.hostPID else cri.POD if spec.shareProcessNamespace else cri.CONTAINER
    return cri.NamespaceOption(
        network=cri.NODE if spec.hostNetwork else cri.POD, ipc=cri.NODE if spec.hostIPC else cri.POD, pid=pid
    )


def _linux(resources: qos.LinuxResources) -> cri.LinuxContainerResources:
    return cri.LinuxContainerResources(
        cpu_period=qos.CPU_PERIOD,
        cpu_quota=resources.quota,
        cpu_shares=resources.shares,
        memory_limit_in_bytes=resources.memory_limit,
        oom_score_adj=resources.oom_score_adj,
    )


def _seccomp(profile: core_v1.SeccompProfile | None) -> cri.SecurityProfile | None:
    if profile is None:
        return None
    kind = {
        "RuntimeDefault": cri.SecurityProfile.RuntimeDefault,
        "Unconfined": cri.SecurityProfile.Unconfined,
        "Localhost": cri.SecurityProfile.Localhost,
    }.get(profile.type, cri.SecurityProfile.Unconfined)
    return cri.SecurityProfile(profile_type=kind, localhost_ref=profile.localhostProfile or "")


def sandbox_config(pod: core_v1.Pod, node: NodeFacts, attempt: int) -> cri.PodSandboxConfig:
    """The PodSandboxConfig of one attempt."""
    meta, spec = pod.metadata, pod.spec
    assert meta is not None and spec is not None
    tier = qos.qos_class(spec)
    resolver = dns.pod_resolver(spec, meta.namespace or "", node.host_resolver, node.cluster_dns, node.cluster_domain)
    security = spec.securityContext or core_v1.PodSecurityContext()
    context = cri.LinuxSandboxSecurityContext(
        namespace_options=_namespaces(spec),
        supplemental_groups=[
            *([security.fsGroup] if security.fsGroup is not None else []),
            *(security.supplementalGroups or ()),
        ],
        privileged=any(c.securityContext and c.securityContext.privileged for c in spec.containers),
        seccomp=_seccomp(security.seccompProfile),
    )
    if security.runAsUser is not None:
        context.run_as_user.value = security.runAsUser
    if security.runAsGroup is not None:
        context.run_as_group.value = security.runAsGroup
    config = cri.PodSandboxConfig(
        metadata=cri.PodSandboxMetadata(
            name=meta.name or "", uid=meta.uid or "", namespace=meta.namespace or "", attempt=attempt
        ),
        log_directory=str(log_directory(node, pod)),
        dns_config=cri.DNSConfig(servers=resolver.servers, searches=resolver.searches, options=resolver.options),
        labels={**(meta.labels or {}), **_identity(pod)},
        annotations={**(meta.annotations or {}), records.POD_GRACE: str(grace_of(spec))},
        linux=cri.LinuxPodSandboxConfig(
            cgroup_parent=qos.cgroup_parent(node.cgroup_root, meta.uid or "", tier) if node.cgroup_root else "",
            security_context=context,
            sysctls={entry.name: entry.value for entry in security.sysctls or ()},
            resources=_linux(qos.pod_resources(spec, tier)),
        ),
    )
    if not spec.hostNetwork:
        config.hostname = dns.hostname(spec, meta.name or "")
    for container in (*spec.containers, *(spec.initContainers or ())):
        for port in container.ports or ():
            config.port_mappings.add(
                protocol=cri.Protocol.Value(port.protocol or "TCP"),
                container_port=port.containerPort,
                host_port=port.hostPort or 0,
                host_ip=port.hostIP or "",
            )
    return config


def grace_of(spec: core_v1.PodSpec) -> int:
    """The pod's own termination grace."""
    return 30 if spec.terminationGracePeriodSeconds is None else spec.terminationGracePeriodSeconds


def _security(
    pod: core_v1.PodSpec, container: core_v1.Container, image_user: int | None
) -> cri.LinuxContainerSecurityContext:
    whole = pod.securityContext or core_v1.PodSecurityContext()
    own = container.securityContext or core_v1.SecurityContext()
    user = own.runAsUser if own.runAsUser is not None else whole.runAsUser
    group = own.runAsGroup if own.runAsGroup is not None else whole.runAsGroup
    non_root = own.runAsNonRoot if own.runAsNonRoot is not None else whole.runAsNonRoot
    if non_root and (user == 0 or (user is None and image_user == 0)):
        why = (
            "container's runAsUser breaks non-root policy"
            if user == 0
            else "container has runAsNonRoot and image will run as root"
        )
        raise ConfigError(why)
    context = cri.LinuxContainerSecurityContext(
        namespace_options=_namespaces(pod),
        privileged=bool(own.privileged),
        readonly_rootfs=bool(own.readOnlyRootFilesystem),
        supplemental_groups=[
            *([whole.fsGroup] if whole.fsGroup is not None else []),
            *(whole.supplementalGroups or ()),
        ],
        no_new_privs=own.allowPrivilegeEscalation is False,
        seccomp=_seccomp(own.seccompProfile or whole.seccompProfile),
    )
    if own.capabilities is not None:
        context.capabilities.add_capabilities.extend(own.capabilities.add or ())
        context.capabilities.drop_capabilities.extend(own.capabilities.drop or ())
    if not own.privileged and own.procMount != "Unmasked":
        context.masked_paths.extend(MASKED_PATHS)
        context.readonly_paths.extend(READONLY_PATHS)
    if user is not None:
        context.run_as_user.value = user
    if group is not None:
        context.run_as_group.value = group
    return context


def container_resources(pod: core_v1.Pod, container: core_v1.Container, node: NodeFacts) -> cri.LinuxContainerResources:
    """The limits of one container."""
    spec = pod.spec
    assert spec is not None
    return _linux(qos.container_resources(container, qos.qos_class(spec), node.memory, spec.priority))


def container_config(
    pod: core_v1.Pod,
    container: core_v1.Container,
    node: NodeFacts,
    *,
    attempt: int,
    image_ref: str,
    environment: Mapping[str, str],
    mounts: Sequence[MountPlan],
    devices: Sequence[DevicePlan] = (),
    termination_file: str = "",
    image_user: int | None = None,
    target_id: str = "",
) -> cri.ContainerConfig:
    """The ContainerConfig of one attempt; `target_id`: the container whose processes it sees. Raises ConfigError."""
    meta, spec = pod.metadata, pod.spec
    assert meta is not None and spec is not None
    config = cri.ContainerConfig(
        metadata=cri.ContainerMetadata(name=container.name, attempt=attempt),
        image=cri.ImageSpec(image=image_ref, user_specified_image=container.image or ""),
        command=[expand(word, environment) for word in container.command or ()],
        args=[expand(word, environment) for word in container.args or ()],
        working_dir=container.workingDir or "",
        envs=[cri.KeyValue(key=name, value=value) for name, value in environment.items()],
        labels={**_identity(pod), records.CONTAINER_NAME: container.name},
        annotations={
            records.CONTAINER_HASH: container_hash(container),
            records.RESTART_COUNT: str(attempt),
            records.TERMINATION_PATH: container.terminationMessagePath or "/dev/termination-log",
            records.TERMINATION_POLICY: container.terminationMessagePolicy or "File",
            records.TERMINATION_HOST_PATH: termination_file,
            records.POD_GRACE: str(grace_of(spec)),
        },
        log_path=f"{container.name}/{attempt}.log",
        stdin=bool(container.stdin),
        stdin_once=bool(container.stdinOnce),
        tty=bool(container.tty),
        linux=cri.LinuxContainerConfig(
            resources=container_resources(pod, container, node),
            security_context=_security(spec, container, image_user),
        ),
    )
    namespaces = config.linux.security_context.namespace_options
    if target_id and namespaces.pid == cri.CONTAINER:
        namespaces.pid, namespaces.target_id = cri.TARGET, target_id
    if container.lifecycle and container.lifecycle.stopSignal:
        config.stop_signal = cri.Signal.Value(container.lifecycle.stopSignal)
    for mount in mounts:
        config.mounts.add(
            container_path=mount.container_path,
            host_path=mount.host_path,
            readonly=mount.readonly,
            propagation=_PROPAGATION.get(mount.propagation, cri.PROPAGATION_PRIVATE),
        )
    for device in devices:
        permissions = "r" if device.readonly else "mrw"
        config.devices.add(container_path=device.container_path, host_path=device.host_path, permissions=permissions)
    return config
