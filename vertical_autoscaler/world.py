"""What the cluster looks like: autoscalers, pods, their controllers, and which autoscaler a pod belongs to.

Owns the caches of the component and the selectors of targets. Well-known controllers are read from caches; of others
the `scale` subresource is asked for, once per turn (`refresh`). Writes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

import msgspec

from api import resources
from api.models import apiextensions_v1, autoscaling_v2, core_v1, meta_v1
from api.resources import Resource, Subresource, split_group_version
from client.client import Client, key_of
from client.informer import Informer, Informers
from client.kinds import View
from machinery.errors import StatusError
from machinery.meta import ObjectKey
from machinery.selectors import LabelSelector
from vertical_autoscaler.objects import VPA, TargetRef, Vpa, amounts
from vertical_autoscaler.resources import ContainerSpec, Range, ranges_of

WELL_KNOWN: Final = {
    "Deployment": "apps",
    "ReplicaSet": "apps",
    "StatefulSet": "apps",
    "DaemonSet": "apps",
    "ReplicationController": "",
    "Job": "batch",
    "CronJob": "batch",
}
HAS_PARENT: Final = (
    "The targetRef controller has a parent but it should point to a topmost well-known or scalable controller"
)
MAX_ANCESTORS: Final = 8


class _Spec(msgspec.Struct):
    replicas: int | None = None
    selector: Any = None
    jobTemplate: Any = None


class _Status(msgspec.Struct):
    numberReady: int = 0


class Owner(msgspec.Struct):
    """What of a controller matters here."""

    metadata: meta_v1.ObjectMeta
    spec: _Spec = msgspec.field(default_factory=_Spec)
    status: _Status = msgspec.field(default_factory=_Status)


class _Names(msgspec.Struct):
    plural: str
    kind: str


class _Version(msgspec.Struct):
    name: str
    served: bool = True


class _DefinitionSpec(msgspec.Struct):
    group: str
    names: _Names
    versions: list[_Version] = []


class Definition(msgspec.Struct):
    """Of a CustomResourceDefinition: where its objects are."""

    metadata: meta_v1.ObjectMeta
    spec: _DefinitionSpec


class Reference(NamedTuple):
    """A controller, in whatever version it is named."""

    group: str
    kind: str
    name: str


class Target(NamedTuple):
    """Which pods a targetRef means; `selector` is None when that cannot be told, and `problem` says why."""

    selector: LabelSelector | None
    problem: str = ""


class World:
    """Caches of one process."""

    def __init__(self, client: Client, informers: Informers) -> None:
        self._client = client
        self.vpas: Informer[Vpa] = informers.informer(VPA)
        self.pods: Informer[core_v1.Pod] = informers.informer(core_v1.Pod)
        self.hpas: Informer[autoscaling_v2.HorizontalPodAutoscaler] = informers.informer(
            autoscaling_v2.HorizontalPodAutoscaler
        )
        self.evictions: Informer[core_v1.Event] = informers.informer(
            core_v1.Event, field_selector="reason=Evicted,involvedObject.kind=Pod"
        )
        self._ranges: Informer[core_v1.LimitRange] = informers.informer(core_v1.LimitRange)
        definitions = View(resources.of(apiextensions_v1.CustomResourceDefinition), Definition)
        self._definitions: Informer[Definition] = informers.informer(definitions)
        self._owners: dict[str, Informer[Owner]] = {}
        for kind, group in WELL_KNOWN.items():
            resource = resources.by_kind(group, "v1", kind)
            assert resource is not None
            self._owners[kind] = informers.informer(View(resource, Owner))
        self._scaled: dict[tuple[str, str, str, str], Target] = {}

    def all_vpas(self) -> list[Vpa]:
        """Oldest first: of two for the same pods, the older one counts."""
        return sorted(self.vpas.lister.list(), key=_by_age)

    def ranges(self, namespace: str) -> list[Range]:
        """What the namespace's LimitRanges say."""
        items = [item for each in self._ranges.lister.list(namespace) if each.spec for item in each.spec.limits]
        return ranges_of(items)

    def target(self, vpa: Vpa) -> Target:
        """The pods of an autoscaler, as far as the caches know."""
        namespace, found = vpa.metadata.namespace or "", vpa.spec.targetRef
        if found is None:
            return Target(None, "targetRef not defined")
        if not _well_known(found):
            return self._scaled.get(_place(namespace, found), Target(None, "the target was not read yet"))
        owner = self._owners[found.kind].lister.get(ObjectKey(namespace, found.name))
        if owner is None:
            return Target(None, f"{found.kind} {namespace}/{found.name} does not exist")
        parent = _controller(owner.metadata)
        if parent is not None and WELL_KNOWN.get(parent.kind) == parent.group:
            return Target(None, HAS_PARENT)
        try:
            return Target(_selector(found.kind, owner.spec))
        except (ValueError, TypeError, AttributeError) as error:
            return Target(None, f"its selector cannot be read: {error}")

    async def refresh(self) -> None:
        """Ask for the `scale` of every target that is not well known."""
        wanted = {
            _place(vpa.metadata.namespace or "", vpa.spec.targetRef): vpa.spec.targetRef
            for vpa in self.vpas.lister.list()
            if vpa.spec.targetRef is not None and not _well_known(vpa.spec.targetRef)
        }
        self._scaled = {key: await self._scale(key[0], target) for key, target in wanted.items()}

    async def _scale(self, namespace: str, target: TargetRef) -> Target:
        group, version = split_group_version(target.apiVersion)
        name = f"{target.apiVersion} / {target.kind} / {target.name}"
        resource = self._resource(group, version, target.kind)
        if resource is None:
            return Target(None, f"Unhandled targetRef {name}, last error no matches for kind {target.kind!r}")
        try:
            found = await self._client.get(resource, target.name, namespace, subresource="scale")
            return Target(LabelSelector.parse(str((found.get("status") or {}).get("selector") or "")))
        except (StatusError, ValueError) as error:
            known = self._scaled.get(_place(namespace, target))
            if known is not None and isinstance(error, StatusError) and error.code >= 500:
                return known  # an outage says nothing about the target
            return Target(None, f"Unhandled targetRef {name}, last error {error}")

    def _resource(self, group: str, version: str, kind: str) -> Resource | None:
        for each in self._definitions.lister.list():
            served = [found.name for found in each.spec.versions if found.served]
            if each.spec.group == group and each.spec.names.kind == kind and served:
                chosen = version if version in served else served[0]
                scale = {"scale": Subresource("Scale", group="autoscaling", version="v1")}
                return Resource(group, chosen, each.spec.names.plural, kind, subresources=scale)
        return resources.by_kind(group, version, kind)

    def matching(self, vpa: Vpa) -> list[core_v1.Pod]:
        """Pods that live, by the target's selector."""
        selector = self.target(vpa).selector
        if selector is None:
            return []
        return [
            pod
            for pod in self.pods.lister.list(vpa.metadata.namespace or "")
            if _lives(pod) and pod.metadata is not None and selector.matches(pod.metadata.labels)
        ]

    def controlling(
        self, namespace: str, labels: Mapping[str, str] | None, owner: Reference | None, vpas: Iterable[Vpa]
    ) -> Vpa | None:
        """The first of these autoscalers to which a pod of this controller belongs."""
        if owner is None:
            return None
        ancestors = list(self._ancestors(namespace, owner))
        for vpa in vpas:
            target = vpa.spec.targetRef
            if target is None or vpa.metadata.namespace != namespace:
                continue
            group = split_group_version(target.apiVersion)[0]
            if not any(
                each.kind == target.kind and each.name == target.name and each.group == group for each in ancestors
            ):
                continue
            selector = self.target(vpa).selector
            if selector is not None and selector.matches(labels):
                return vpa
        return None

    def replicas(self, namespace: str, owner: Reference, living: int) -> int:
        """How many pods a controller is to have; 0 when that is not known."""
        found = (
            self._owners[owner.kind].lister.get(ObjectKey(namespace, owner.name))
            if (WELL_KNOWN.get(owner.kind) == owner.group)
            else None
        )
        if owner.kind == "DaemonSet":
            return found.status.numberReady if found is not None else 0
        if found is None or owner.kind == "Job":
            return living  # those of a Job, or of a controller that we know nothing of, are those that live
        return 1 if found.spec.replicas is None else found.spec.replicas

    def _ancestors(self, namespace: str, owner: Reference) -> Iterator[Reference]:
        current: Reference | None = owner
        for _ in range(MAX_ANCESTORS):
            if current is None:
                return
            yield current
            if WELL_KNOWN.get(current.kind) != current.group:
                return
            found = self._owners[current.kind].lister.get(ObjectKey(namespace, current.name))
            current = _controller(found.metadata) if found is not None else None


def owner_of(metadata: meta_v1.ObjectMeta | None) -> Reference | None:
    """The controller of a pod."""
    return _controller(metadata) if metadata is not None else None


def specs_of(pod: core_v1.Pod) -> list[ContainerSpec]:
    """The resources of a pod's containers."""
    containers: Sequence[core_v1.Container] = pod.spec.containers if pod.spec is not None else ()
    return [
        ContainerSpec(
            index,
            each.name,
            amounts(each.resources.requests if each.resources is not None else None),
            amounts(each.resources.limits if each.resources is not None else None),
        )
        for index, each in enumerate(containers)
    ]


def _by_age(vpa: Vpa) -> tuple[datetime, str]:
    return vpa.metadata.creationTimestamp or datetime.max.replace(tzinfo=UTC), str(key_of(vpa))


def _well_known(target: TargetRef) -> bool:
    return WELL_KNOWN.get(target.kind) == split_group_version(target.apiVersion)[0]


def _place(namespace: str, target: TargetRef) -> tuple[str, str, str, str]:
    return (namespace, target.apiVersion, target.kind, target.name)


def _controller(metadata: meta_v1.ObjectMeta) -> Reference | None:
    for each in metadata.ownerReferences or ():
        if each.controller:
            return Reference(split_group_version(each.apiVersion or "")[0], each.kind or "", each.name or "")
    return None


def _selector(kind: str, spec: _Spec) -> LabelSelector:
    if kind == "CronJob":
        template = ((spec.jobTemplate or {}).get("spec") or {}).get("template") or {}
        return LabelSelector.from_labels((template.get("metadata") or {}).get("labels"))
    if kind == "ReplicationController":
        return LabelSelector.from_labels(spec.selector)
    return LabelSelector.from_object(spec.selector)


def _lives(pod: core_v1.Pod) -> bool:
    phase = pod.status.phase if pod.status is not None else None
    return pod.metadata is not None and pod.metadata.deletionTimestamp is None and phase not in ("Succeeded", "Failed")
