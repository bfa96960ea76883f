"""PodSecurity: pods are refused or warned about as their namespace's labels ask for.

Templates of workloads are only warned about: their pods are what is refused. A namespace whose labels become stricter
tells about the pods that are already there. What would be audited has no log to go to yet.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from apiserver.admission.pod_security.levels import (
    LEVELS,
    PRIVILEGED,
    Policy,
    Standard,
    details,
    policy_of,
    reasons,
    violations,
)
from apiserver.admission.refusal import forbidden
from apiserver.registry.context import RequestContext
from apiserver.registry.hooks import DELETE, Obj, Undo
from apiserver.registry.store import Registry
from machinery.field_errors import invalid

if TYPE_CHECKING:
    from api.resources import Resource

PODS, NAMESPACES = ("", "pods"), ("", "namespaces")
TEMPLATES: Mapping[tuple[str, str], tuple[str, ...]] = {
    ("", "replicationcontrollers"): ("spec", "template"),
    ("", "podtemplates"): ("template",),
    ("apps", "replicasets"): ("spec", "template"),
    ("apps", "deployments"): ("spec", "template"),
    ("apps", "statefulsets"): ("spec", "template"),
    ("apps", "daemonsets"): ("spec", "template"),
    ("batch", "jobs"): ("spec", "template"),
    ("batch", "cronjobs"): ("spec", "jobTemplate", "spec", "template"),
}
IGNORED_SUBRESOURCES = frozenset(
    {"exec", "attach", "binding", "eviction", "log", "portforward", "proxy", "status", "resize"}
)
MOST_PODS = 3000
SECCOMP = "seccomp.security.alpha.kubernetes.io/pod"
SECCOMP_PREFIX = "container.seccomp.security.alpha.kubernetes.io/"


def template_of(target: tuple[str, str], obj: Obj) -> Obj | None:
    """The pod template inside a workload."""
    found: Any = obj
    for step in TEMPLATES[target]:
        found = found.get(step) if isinstance(found, dict) else None
    return found if isinstance(found, dict) else None


def matters(new: Obj, old: Obj) -> bool:
    """Has the pod changed in anything that a check looks at and that can change at all?"""
    after, before = (each["metadata"].get("annotations") or {} for each in (new, old))
    if after.get(SECCOMP) != before.get(SECCOMP):
        return True
    spec, old_spec = new.get("spec") or {}, old.get("spec") or {}
    for field in ("containers", "initContainers", "ephemeralContainers"):
        known = {each.get("name"): each for each in old_spec.get(field) or ()}
        containers = spec.get(field) or ()
        if len(containers) != len(known):
            return True
        for each in containers:
            name = each.get("name")
            key = f"{SECCOMP_PREFIX}{name}"
            if name not in known or each.get("image") != known[name].get("image") or after.get(key) != before.get(key):
                return True
    return False


def tell_existing(namespace: str, standard: Standard, pods: Iterable[Obj], total: int) -> list[str]:
    """Warnings about pods that a namespace's new level would refuse, equal ones told together."""
    by_reason: dict[str, list[str]] = {}
    checked = 0
    for pod in pods:
        checked += 1
        found = violations(standard, pod["metadata"], pod.get("spec") or {})
        if found:
            by_reason.setdefault(reasons(found), []).append(pod["metadata"]["name"])
    told = []
    if checked < total:
        told.append(f"new PodSecurity enforce level only checked against the first {checked} of {total} existing pods")
    if by_reason:
        told.append(f'existing pods in namespace "{namespace}" violate the new PodSecurity enforce level "{standard}"')
    lines = []
    for reason, names in by_reason.items():
        others = len(names) - 1
        also = f" (and {others} other pod{'s' if others > 1 else ''})" if others else ""
        lines.append(f"{min(names)}{also}: {reason}")
    return told + sorted(lines)


AUDIT = "pod-security.kubernetes.io/"  # of annotations in the audit log


class PodSecurity:
    """Reads namespaces from the cache, where their labels are already decoded."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def handles(self, resource: Resource) -> bool:
        target = (resource.group, resource.plural)
        return target in TEMPLATES or target in (PODS, NAMESPACES)

    async def check(
        self,
        ctx: RequestContext,
        op: str,
        resource: Resource,
        namespace: str,
        name: str,
        new: Obj | None,
        old: Obj | None,
        subresource: str,
    ) -> Undo | None:
        if op == DELETE or new is None:
            return None
        target = (resource.group, resource.plural)
        if target == NAMESPACES:
            if not subresource:
                self._check_namespace(ctx, name, new, old)
            return None
        if subresource in IGNORED_SUBRESOURCES or (subresource and target != PODS):
            return None
        policy = self._policy(namespace)
        if policy.free:
            return None
        if target == PODS:
            if old is None or matters(new, old):
                self._judge(ctx, resource, name, policy, new, enforce=True)
        else:
            template = template_of(target, new)
            if template is not None:
                self._judge(ctx, resource, name, policy, template, enforce=False)
        return None

    def _policy(self, namespace: str) -> Policy:
        entry = self._registry.resource("", "v1", "namespaces").peek("", namespace)
        return policy_of(entry.labels)[0] if entry is not None else Policy()

    def _judge(
        self, ctx: RequestContext, resource: Resource, name: str, policy: Policy, pod: Obj, *, enforce: bool
    ) -> None:
        meta, spec = pod.get("metadata") or {}, pod.get("spec") or {}
        if enforce:
            ctx.annotations[f"{AUDIT}enforce-policy"] = str(policy.enforce)
            found = violations(policy.enforce, meta, spec)
            if found:
                raise forbidden(resource, name, pod, f'violates PodSecurity "{policy.enforce}": {details(found)}')
        if found := violations(policy.audit, meta, spec):
            text = f'would violate PodSecurity "{policy.audit}": {details(found)}'
            ctx.annotations[f"{AUDIT}audit-violations"] = text
        found = violations(policy.warn, meta, spec)
        if found:
            _warn(ctx, f'would violate PodSecurity "{policy.warn}": {details(found)}')

    def _check_namespace(self, ctx: RequestContext, name: str, new: Obj, old: Obj | None) -> None:
        policy, wrong = policy_of(new["metadata"].get("labels") or {})
        if old is None:
            if wrong:
                raise invalid("Namespace", name, "", wrong)
            return
        before, was_wrong = policy_of(old["metadata"].get("labels") or {})
        if wrong and [str(each) for each in wrong] != [str(each) for each in was_wrong]:
            raise invalid("Namespace", name, "", wrong)
        now, then = policy.enforce, before.enforce
        if now == then or now.level == PRIVILEGED:
            return
        if now.version == then.version and LEVELS.index(now.level) <= LEVELS.index(then.level):
            return
        pods = [entry.decoded() for entry in self._registry.resource("", "v1", "pods").entries(name)]
        for text in tell_existing(name, now, _distinct(pods)[:MOST_PODS], len(pods)):
            _warn(ctx, text)


def _distinct(pods: list[Obj]) -> list[Obj]:
    """One pod of every controller first: its siblings are most likely alike."""
    first, rest, seen = list[Obj](), list[Obj](), set[str]()
    for pod in pods:
        owners = pod["metadata"].get("ownerReferences") or ()
        controller = next((str(owner.get("uid")) for owner in owners if owner.get("controller")), "")
        (rest if controller and controller in seen else first).append(pod)
        seen.add(controller)
    return first + rest


def _warn(ctx: RequestContext, text: str) -> None:
    if text not in ctx.warnings:
        ctx.warnings.append(text)
