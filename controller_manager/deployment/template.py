"""Which ReplicaSet is a Deployment's new one, and what a fresh one looks like.

Pure. The hash need not equal upstream's (it depends on Go's memory layout there too): a set is found by comparing
templates; the hash only makes names and labels distinct. Called by controller.py.
"""
# mypy: disable-error-code="union-attr"
# Objects from the server carry metadata, spec and status; the models call them optional.

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from api.models import apps_v1, core_v1, meta_v1
from client.listers import copied
from controller_manager.objects import controller_reference

HASH_LABEL: Final = "pod-template-hash"
_ALPHABET: Final = "bcdfghjklmnpqrstvwxz2456789"  # no vowels: names cannot spell words
_encoder = msgspec.json.Encoder(order="deterministic")


def template_hash(template: core_v1.PodTemplateSpec, collisions: int | None) -> str:
    """FNV-1a (32 bit) of the template, as text in the alphabet of generated names."""
    value = 0x811C9DC5
    for byte in _encoder.encode(template):
        value = ((value ^ byte) * 0x01000193) & 0xFFFFFFFF
    if collisions is not None:
        for byte in collisions.to_bytes(8, "little"):
            value = ((value ^ byte) * 0x01000193) & 0xFFFFFFFF
    return "".join(_ALPHABET[ord(digit) % len(_ALPHABET)] for digit in str(value))


def same_template(one: core_v1.PodTemplateSpec | None, other: core_v1.PodTemplateSpec | None) -> bool:
    """Equality but for the hash label."""
    if one is None or other is None:
        return False
    return bool(one.spec == other.spec) and _metadata(one) == _metadata(other)


def _metadata(template: core_v1.PodTemplateSpec) -> tuple[object, ...]:
    metadata = template.metadata or meta_v1.ObjectMeta()
    labels = {name: value for name, value in (metadata.labels or {}).items() if name != HASH_LABEL}
    return labels, metadata.annotations or {}, metadata.finalizers or [], metadata.name, metadata.namespace


def by_creation(sets: Iterable[apps_v1.ReplicaSet]) -> list[apps_v1.ReplicaSet]:
    """Oldest first; names break ties."""
    return sorted(sets, key=lambda rs: (rs.metadata.creationTimestamp, rs.metadata.name or ""))


def find_new(
    deployment: apps_v1.Deployment, sets: Sequence[apps_v1.ReplicaSet]
) -> tuple[apps_v1.ReplicaSet | None, list[apps_v1.ReplicaSet]]:
    """The set with the Deployment's template (the oldest of several), and all others."""
    ordered = by_creation(sets)
    new = next((rs for rs in ordered if same_template(rs.spec.template, deployment.spec.template)), None)
    return new, [rs for rs in ordered if rs is not new]


def new_replica_set(deployment: apps_v1.Deployment, annotations: dict[str, str], replicas: int) -> apps_v1.ReplicaSet:
    """The set to create for the Deployment's present template."""
    status = deployment.status
    digest = template_hash(deployment.spec.template, status.collisionCount if status is not None else None)
    template = copied(deployment.spec.template)
    template.metadata = template.metadata or meta_v1.ObjectMeta()
    template.metadata.labels = {**(template.metadata.labels or {}), HASH_LABEL: digest}
    selector = copied(deployment.spec.selector)
    selector.matchLabels = {**(selector.matchLabels or {}), HASH_LABEL: digest}
    return apps_v1.ReplicaSet(
        metadata=meta_v1.ObjectMeta(
            name=f"{deployment.metadata.name}-{digest}",
            namespace=deployment.metadata.namespace,
            labels=dict(template.metadata.labels),
            annotations=annotations,
            ownerReferences=[controller_reference(deployment)],
        ),
        spec=apps_v1.ReplicaSetSpec(
            replicas=replicas,
            minReadySeconds=deployment.spec.minReadySeconds,
            selector=selector,
            template=template,
        ),
    )
