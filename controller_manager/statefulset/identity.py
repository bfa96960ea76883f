"""Who the pod with a given ordinal is: its name, labels, host name, and the claims it mounts.

Pure. Called by plan.py and controller.py.
"""
# mypy: disable-error-code="union-attr"
# Objects from the server carry metadata, spec and status; the models call them optional.

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

from api.models import apps_v1, core_v1, meta_v1
from client.listers import copied
from controller_manager.objects import controller_reference

REVISION: Final = "controller-revision-hash"
POD_NAME: Final = "statefulset.kubernetes.io/pod-name"
POD_INDEX: Final = "apps.kubernetes.io/pod-index"
RETAIN: Final = "Retain"
DELETE: Final = "Delete"
_NAME: Final = re.compile(r"(.*)-([0-9]+)")

Set = apps_v1.StatefulSet
Claim = core_v1.PersistentVolumeClaim


def ordinal_of(set_: Set, pod: core_v1.Pod) -> int | None:
    """The ordinal in the pod's name; None if it is not a name of this set."""
    match = _NAME.fullmatch(pod.metadata.name or "")
    return int(match[2]) if match is not None and match[1] == set_.metadata.name else None


def pod_name(set_: Set, ordinal: int) -> str:
    return f"{set_.metadata.name}-{ordinal}"


def labels_of(set_: Set, ordinal: int) -> dict[str, str]:
    """The labels that tell which pod of the set it is."""
    return {POD_NAME: pod_name(set_, ordinal), POD_INDEX: str(ordinal)}


def revision_of(pod: core_v1.Pod) -> str:
    """The name of the revision that the pod was made from."""
    return str((pod.metadata.labels or {}).get(REVISION, ""))


def pod_for(set_: Set, ordinal: int, template: core_v1.PodTemplateSpec, revision: str) -> core_v1.Pod:
    """The pod to create."""
    name = pod_name(set_, ordinal)
    given = template.metadata or meta_v1.ObjectMeta()
    spec = copied(template.spec)
    if spec is not None:
        spec.hostname = name
        spec.subdomain = set_.spec.serviceName or None
        spec.volumes = _with_claims(spec.volumes or [], set_, ordinal) or None
    labels = {**(given.labels or {}), **labels_of(set_, ordinal), REVISION: revision}
    return core_v1.Pod(
        metadata=meta_v1.ObjectMeta(
            name=name,
            generateName=f"{set_.metadata.name}-",
            namespace=set_.metadata.namespace,
            labels=labels,
            annotations=dict(given.annotations or {}) or None,
            finalizers=list(given.finalizers or ()) or None,
            ownerReferences=[controller_reference(set_)],
        ),
        spec=spec,
    )


def _with_claims(volumes: list[Any], set_: Set, ordinal: int) -> list[Any]:
    claims = {template.metadata.name or "": claim_name(set_, template, ordinal) for template in templates(set_)}
    mounted = [
        core_v1.Volume(
            name=name, persistentVolumeClaim=core_v1.PersistentVolumeClaimVolumeSource(claimName=claim, readOnly=False)
        )
        for name, claim in claims.items()
    ]
    return [*mounted, *(each for each in volumes if each.name not in claims)]


def templates(set_: Set) -> list[Claim]:
    return list(set_.spec.volumeClaimTemplates or ())


def claim_name(set_: Set, template: Claim, ordinal: int) -> str:
    return f"{template.metadata.name}-{set_.metadata.name}-{ordinal}"


def claims_for(set_: Set, ordinal: int) -> list[Claim]:
    """The claims that the pod needs."""
    selected = dict(set_.spec.selector.matchLabels or {})
    made = []
    for template in templates(set_):
        claim = copied(template)
        claim.status = None
        given = template.metadata
        claim.metadata = meta_v1.ObjectMeta(
            name=claim_name(set_, template, ordinal),
            namespace=set_.metadata.namespace,
            labels={**(given.labels or {}), **selected} or None,
            annotations=dict(given.annotations or {}) or None,
            ownerReferences=[controller_reference(set_)] if _policy(set_)[0] == DELETE else None,
        )
        made.append(claim)
    return made


def _policy(set_: Set) -> tuple[str, str]:
    policy = set_.spec.persistentVolumeClaimRetentionPolicy
    if policy is None:
        return RETAIN, RETAIN
    return policy.whenDeleted or RETAIN, policy.whenScaled or RETAIN


def plan_claim_owners(
    set_: Set, claim: Claim, pod: core_v1.Pod | None, *, condemned: bool
) -> list[dict[str, Any]] | None:
    """The claim's owners by the retention policy, or None if they are right already.

    The set owns it with whenDeleted: Delete; with whenScaled: Delete, the pod does once it is to go for good, so that
    the garbage collector takes the claim after the pod. Owners that others have given it stay.
    """
    when_deleted, when_scaled = _policy(set_)
    current = list(claim.metadata.ownerReferences or ())
    pod_uid = pod.metadata.uid if pod is not None else None
    ours = {set_.metadata.uid, pod_uid}
    others = [each for each in current if each.uid not in ours and not _is_stale(set_, each, claim)]
    by_pod = condemned and when_scaled == DELETE and pod is not None
    wanted = [*others]
    if by_pod:
        wanted.append(controller_reference(pod))
    elif when_deleted == DELETE:
        wanted.append(controller_reference(set_))
    if {each.uid for each in wanted} == {each.uid for each in current}:
        return None
    plain: list[dict[str, Any]] = msgspec.to_builtins(wanted)
    return plain


def is_condemned(set_: Set, claim: Claim, ordinal: int) -> bool:
    """Whether the claim of a pod that does not exist is going, or will be: with an earlier pod of that name."""
    if claim.metadata.deletionTimestamp is not None:
        return True
    owners = claim.metadata.ownerReferences or ()
    doomed = any(each.kind == "Pod" and each.name == pod_name(set_, ordinal) for each in owners)
    return doomed and _policy(set_)[1] == DELETE


def _is_stale(set_: Set, reference: meta_v1.OwnerReference, claim: Claim) -> bool:
    """Whether the reference is one of ours to an earlier pod of that name."""
    return (
        reference.kind == "Pod"
        and reference.name.startswith(f"{set_.metadata.name}-")
        and (claim.metadata.name or "").endswith(f"-{reference.name}")
    )
