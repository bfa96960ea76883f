"""Short ways to write nodes and pods in tests."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from api.models import core_v1, meta_v1
from scheduler.framework.pod_info import PodInfo

ALLOCATABLE = {"cpu": "4", "memory": "8Gi", "ephemeral-storage": "50Gi", "pods": "110"}


def node(
    name: str,
    *,
    labels: Mapping[str, str] | None = None,
    taints: Sequence[tuple[str, str, str]] = (),
    unschedulable: bool = False,
    images: Mapping[str, int] | None = None,
    **allocatable: Any,
) -> core_v1.Node:
    offered = {**ALLOCATABLE, **{key.replace("__", "/").replace("_", "-"): str(v) for key, v in allocatable.items()}}
    return core_v1.Node(
        metadata=meta_v1.ObjectMeta(name=name, labels={"kubernetes.io/hostname": name, **(labels or {})}),
        spec=core_v1.NodeSpec(
            unschedulable=unschedulable or None,
            taints=[core_v1.Taint(key=key, value=value or None, effect=effect) for key, value, effect in taints]
            or None,
        ),
        status=core_v1.NodeStatus(
            allocatable=offered,
            images=[core_v1.ContainerImage(names=[image], sizeBytes=size) for image, size in (images or {}).items()]
            or None,
        ),
    )


def container(
    name: str = "app",
    requests: Mapping[str, str] | None = None,
    *,
    image: str = "busybox",
    restart: str | None = None,
    ports: Sequence[tuple[str, str, int]] = (),
) -> core_v1.Container:
    return core_v1.Container(
        name=name,
        image=image,
        restartPolicy=restart,
        resources=core_v1.ResourceRequirements(requests=dict(requests)) if requests is not None else None,
        ports=[
            core_v1.ContainerPort(containerPort=number, hostPort=number, hostIP=ip or None, protocol=protocol or None)
            for protocol, ip, number in ports
        ]
        or None,
    )


def pod(
    name: str = "web",
    requests: Mapping[str, str] | None = None,
    *,
    containers: Sequence[core_v1.Container] | None = None,
    namespace: str = "default",
    uid: str | None = None,
    status: core_v1.PodStatus | None = None,
    labels: Mapping[str, str] | None = None,
    **spec: Any,
) -> core_v1.Pod:
    return core_v1.Pod(
        metadata=meta_v1.ObjectMeta(
            name=name, namespace=namespace, uid=uid or f"uid-{name}", labels=dict(labels) if labels else None
        ),
        spec=core_v1.PodSpec(
            containers=list(containers) if containers is not None else [container(requests=requests)], **spec
        ),
        status=status,
    )


def info(name: str = "web", requests: Mapping[str, str] | None = None, **rest: Any) -> PodInfo:
    return PodInfo(pod(name, requests, **rest))


def tolerate(key: str = "", operator: str = "Equal", value: str = "", effect: str = "") -> core_v1.Toleration:
    return core_v1.Toleration(key=key or None, operator=operator, value=value or None, effect=effect or None)


def expression(key: str, operator: str, *values: str) -> core_v1.NodeSelectorRequirement:
    return core_v1.NodeSelectorRequirement(key=key, operator=operator, values=list(values) or None)


def term(
    *expressions: core_v1.NodeSelectorRequirement, fields: Sequence[core_v1.NodeSelectorRequirement] = ()
) -> core_v1.NodeSelectorTerm:
    return core_v1.NodeSelectorTerm(matchExpressions=list(expressions) or None, matchFields=list(fields) or None)


def affinity(
    required: Sequence[core_v1.NodeSelectorTerm] | None = None,
    preferred: Sequence[tuple[int, core_v1.NodeSelectorTerm]] = (),
) -> core_v1.Affinity:
    return core_v1.Affinity(
        nodeAffinity=core_v1.NodeAffinity(
            requiredDuringSchedulingIgnoredDuringExecution=(
                core_v1.NodeSelector(nodeSelectorTerms=list(required)) if required is not None else None
            ),
            preferredDuringSchedulingIgnoredDuringExecution=[
                core_v1.PreferredSchedulingTerm(weight=weight, preference=each) for weight, each in preferred
            ]
            or None,
        )
    )


async def until(true: Callable[[], bool], seconds: float = 10.0) -> None:
    """Wait for something to become true; raises TimeoutError."""
    async with asyncio.timeout(seconds):
        while not true():  # noqa: ASYNC110  what is awaited has no event of its own
            await asyncio.sleep(0.001)
