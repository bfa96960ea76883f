"""NodeRestriction: a kubelet writes its own Node, its own Lease and CSINode, and pods bound to it, and gets these
pods' tokens; nothing else.

Works together with the node authorizer, which decides what a kubelet may ask for at all. Does nothing for other users.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from apiserver.admission.node_tokens import NodeTokens
from apiserver.admission.policies.expressions import Authorize
from apiserver.admission.refusal import forbidden
from apiserver.registry.context import RequestContext
from apiserver.registry.hooks import CREATE, DELETE, UPDATE, Obj
from apiserver.registry.store import Registry

if TYPE_CHECKING:
    from api.resources import Resource

LEASE_NAMESPACE = "kube-node-lease"
MIRROR = "kubernetes.io/config.mirror"
RESERVED = "node-restriction.kubernetes.io"
KUBELET_LABELS = frozenset(
    {
        "beta.kubernetes.io/arch",
        "beta.kubernetes.io/instance-type",
        "beta.kubernetes.io/os",
        "failure-domain.beta.kubernetes.io/region",
        "failure-domain.beta.kubernetes.io/zone",
        "kubernetes.io/arch",
        "kubernetes.io/hostname",
        "kubernetes.io/os",
        "node.kubernetes.io/instance-type",
        "topology.kubernetes.io/region",
        "topology.kubernetes.io/zone",
    }
)
KUBELET_DOMAINS = ("kubelet.kubernetes.io", "node.kubernetes.io")


def forbidden_label(label: str) -> bool:
    """May a kubelet not touch this label? Labels of Kubernetes steer workloads, so only known ones are a kubelet's."""
    domain = label.partition("/")[0] if "/" in label else ""
    if domain == RESERVED or domain.endswith("." + RESERVED):
        return True
    ours = domain in ("kubernetes.io", "k8s.io") or domain.endswith((".kubernetes.io", ".k8s.io"))
    if not ours or label in KUBELET_LABELS:
        return False
    return not any(domain == each or domain.endswith("." + each) for each in KUBELET_DOMAINS)


def changed_labels(new: Obj, old: Obj | None) -> list[str]:
    """Labels that were added, changed or removed, sorted."""
    after = new["metadata"].get("labels") or {}
    before = ((old or {}).get("metadata") or {}).get("labels") or {}
    return sorted(label for label in {*after, *before} if after.get(label) != before.get(label))


class NodeRestriction:
    """Refuses; never changes anything."""

    def __init__(self, registry: Registry, authorize: Authorize | None = None) -> None:
        self._pods = registry.resource("", "v1", "pods")
        self._tokens = NodeTokens(registry, authorize)

    def handles(self, resource: Resource) -> bool:
        return resource.plural in ("pods", "nodes", "leases", "csinodes", "serviceaccounts")

    async def admit(
        self,
        ctx: RequestContext,
        op: str,
        resource: Resource,
        namespace: str,
        name: str,
        new: Obj | None,
        old: Obj | None,
        subresource: str,
    ) -> None:
        node = ctx.user.node_name
        if not node:
            return
        why = ""
        match resource.group, resource.plural:
            case "", "pods":
                evicts = subresource == "eviction"
                why = self._eviction(node, namespace, name) if evicts else _pod(node, op, new, old, subresource)
            case "", "nodes":
                why = _node(node, op, name, new, old)
            case "", "serviceaccounts":
                if subresource == "token" and op == CREATE and new is not None:
                    why = await self._tokens.refusal(ctx.user, namespace, name, new)
            case "coordination.k8s.io", "leases":
                if namespace != LEASE_NAMESPACE:
                    why = f'can only access leases in the "{LEASE_NAMESPACE}" system namespace'
                elif name != node:
                    why = "can only access node lease with the same name as the requesting node"
            case "storage.k8s.io", "csinodes":
                if name != node:
                    why = "can only access CSINode with the same name as the requesting node"
        if why:
            raise forbidden(resource, name, new, why)

    def _eviction(self, node: str, namespace: str, name: str) -> str:
        entry = self._pods.peek(namespace, name)
        if entry is None or (entry.decoded().get("spec") or {}).get("nodeName") == node:
            return ""
        return f'node "{node}" can only evict pods with spec.nodeName set to itself'


def _pod(node: str, op: str, new: Obj | None, old: Obj | None, subresource: str) -> str:
    """Why this is refused, or ""."""
    if subresource not in ("", "status"):
        return f"unexpected pod subresource \"{subresource}\", only 'status' and 'eviction' are allowed"
    if op == CREATE and new is not None:
        if MIRROR not in (new["metadata"].get("annotations") or {}):
            return f'pod does not have "{MIRROR}" annotation, node "{node}" can only create mirror pods'
        spec = new.get("spec") or {}
        if spec.get("nodeName") != node:
            return f'node "{node}" can only create pods with spec.nodeName set to itself'
        if spec.get("serviceAccountName"):
            return f'node "{node}" can not create pods that reference a service account'
    elif op == DELETE and old is not None:
        if (old.get("spec") or {}).get("nodeName") != node:
            return f'node "{node}" can only delete pods with spec.nodeName set to itself'
    elif op == UPDATE and old is not None and new is not None:
        if subresource != "status":
            return f'unexpected operation "{op}", node "{node}" can only create and delete mirror pods'
        if (old.get("spec") or {}).get("nodeName") != node:
            return f'node "{node}" can only update pod status for pods with spec.nodeName set to itself'
        if changed_labels(new, old):
            return f'node "{node}" cannot update labels through pod status'
    return ""


def _node(node: str, op: str, name: str, new: Obj | None, old: Obj | None) -> str:
    """Why this is refused, or ""."""
    if op == CREATE and new is not None:
        labels = [label for label in changed_labels(new, None) if forbidden_label(label)]
        if labels:
            return f"is not allowed to set the following labels: {', '.join(labels)}"
    if name != node:
        return f'node "{node}" is not allowed to modify node "{name}"'
    if op == UPDATE and new is not None and old is not None:
        if (new.get("spec") or {}).get("taints") != (old.get("spec") or {}).get("taints"):
            return f'node "{node}" is not allowed to modify taints'
        labels = [label for label in changed_labels(new, old) if forbidden_label(label)]
        if labels:
            return f"is not allowed to modify labels: {', '.join(labels)}"
    return ""
