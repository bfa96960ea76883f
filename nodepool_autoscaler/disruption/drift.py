"""Whether a claim is still what its NodePool asks for. Pure.

Source: karpenter.sh, "Drift". Most of a template is compared by a hash that the pool and its claims carry as an
annotation, next to the version of the way in which it is made: hashes of another version say nothing. Requirements are
compared by what they mean, since a claim may still meet requirements that have changed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from nodepool_autoscaler.names import HASH_VERSION as VERSION
from nodepool_autoscaler.names import POOL_HASH as HASH
from nodepool_autoscaler.names import POOL_HASH_VERSION as HASH_VERSION

NODE_POOL_DRIFTED: Final = "NodePoolDrifted"
REQUIREMENTS_DRIFTED: Final = "RequirementsDrifted"
INSTANCE_TYPE_NOT_FOUND: Final = "InstanceTypeNotFound"
NODE_CLASS_DRIFTED: Final = "NodeClassDrift"

_encode = msgspec.json.Encoder(order="deterministic").encode


def _canonical(value: Any) -> Any:
    """Without what is empty or zero; lists are sets."""
    if isinstance(value, Mapping):
        kept = {key: _canonical(each) for key, each in value.items()}
        return {
            key: each for key, each in kept.items() if each not in ("", 0, False, None) and each != {} and each != []
        }
    if isinstance(value, list | tuple):
        return sorted((_canonical(each) for each in value), key=_encode)
    return value


def template_hash(template: Mapping[str, Any]) -> str:
    """Of a NodePool's `spec.template` (plain JSON), requirements left out: decimal, 64 bits."""
    spec = {key: value for key, value in (template.get("spec") or {}).items() if key != "requirements"}
    metadata = template.get("metadata") or {}
    kept = {"metadata": {key: metadata.get(key) for key in ("labels", "annotations")}, "spec": spec}
    return str(int.from_bytes(hashlib.sha256(_encode(_canonical(kept))).digest()[:8]))


def hash_annotations(made: str) -> dict[str, str]:
    """What a pool whose template has this hash carries, and every claim that is made of it."""
    return {HASH: made, HASH_VERSION: VERSION}


def is_static_drift(pool: Mapping[str, str], claim: Mapping[str, str]) -> bool:
    """By annotations of both; nothing is said while one of them lacks a hash or has one of another version."""
    if any(not notes.get(key) for notes in (pool, claim) for key in (HASH, HASH_VERSION)):
        return False
    return pool[HASH_VERSION] == claim[HASH_VERSION] and pool[HASH] != claim[HASH]


def drift_reason(*, static: bool, meets_requirements: bool, offered: bool, same_class: bool) -> str:
    """Upstream's word for the first kind of drift that applies; "" for none. `offered`: the cloud still knows the
    instance type, in that zone and of that capacity type. `same_class`: the node class has not changed since."""
    reasons: Iterable[tuple[bool, str]] = (
        (static, NODE_POOL_DRIFTED),
        (not meets_requirements, REQUIREMENTS_DRIFTED),
        (not offered, INSTANCE_TYPE_NOT_FOUND),
        (not same_class, NODE_CLASS_DRIFTED),
    )
    return next((reason for applies, reason in reasons if applies), "")
