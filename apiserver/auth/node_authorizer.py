"""What a kubelet may do: only what concerns its own node and the pods bound to it.

Owns the decisions; what a pod makes its node read is the graph's (`node_graph.py`). Called for users
`system:node:<name>` in group `system:nodes`; everybody else gets no opinion.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from apiserver.auth.attributes import NO_OPINION, Attributes, Decision
from apiserver.auth.node_graph import PodGraph
from apiserver.auth.rbac import Rule, rules_of
from apiserver.auth.user import UserInfo

LEASE_NAMESPACE = "kube-node-lease"
READS = frozenset({"get", "list", "watch"})
WRITES = frozenset({"update", "patch"})
OWN_VERBS = frozenset({"get", "create", "update", "patch", "delete"})
_ALLOWED = Decision(True, "node")


class NodeAuthorizer:
    """Decides for kubelets. `rules` are the general rights of nodes (the ClusterRole system:node)."""

    def __init__(self, graph: PodGraph, rules: list[dict[str, Any]]) -> None:
        self._graph = graph
        self._rules: tuple[Rule, ...] = rules_of({"rules": rules})

    def decide(self, user: UserInfo, asked: Attributes) -> Decision:
        node = user.node_name
        if not node or not asked.is_resource:
            return NO_OPINION
        special = _SPECIAL.get((asked.group, asked.resource))
        if special is not None:
            why = special(self, node, asked)
            if why is not None:
                return Decision(False, why)
        verb, group, resource = asked.verb, asked.group, asked.resource
        if any(rule.covers(verb, group, resource, asked.subresource) for rule in self._rules):
            return _ALLOWED
        return NO_OPINION

    # Each check returns why not ("" without a reason), or None when nothing speaks against it.

    def _named(self, node: str, asked: Attributes) -> str | None:
        name = asked.name or selected(asked.field_selector, "metadata.name")
        if not name:
            return "No Object name found"
        return None if self._graph.needs(node, asked.resource, asked.namespace, name) else _no_relation(node)

    def _needed(self, node: str, asked: Attributes) -> str | None:
        """Named reads of what a pod on the node refers to."""
        if asked.verb not in READS:
            return "can only read resources of this type"
        if asked.subresource:
            return "cannot read subresource"
        if not asked.namespace:
            return "can only read namespaced object of this type"
        return self._named(node, asked)

    def _get(self, node: str, asked: Attributes) -> str | None:
        """Volumes and attachments."""
        if asked.verb != "get":
            return "can only get individual resources of this type"
        if asked.subresource:
            return "cannot get subresource"
        return self._named(node, asked)

    def _claim(self, node: str, asked: Attributes) -> str | None:
        if asked.subresource != "status":
            return self._get(node, asked)
        if asked.verb not in WRITES:
            return "can only get/update/patch this type"
        return self._named(node, asked)

    def _service_account(self, node: str, asked: Attributes) -> str | None:
        if asked.verb == "get" and asked.name and not asked.subresource:
            return self._named(node, asked)
        if asked.verb != "create" or not asked.name:
            return "can only create tokens for individual service accounts"
        if asked.subresource != "token":
            return "can only create token subresource of serviceaccount"
        return self._named(node, asked)

    def _pod(self, node: str, asked: Attributes) -> str | None:
        """NodeRestriction looks at the pods that are written; reads are decided here."""
        verb = asked.verb
        if asked.subresource:
            writes = WRITES if asked.subresource == "status" else {"create"}
            return None if asked.subresource in ("status", "eviction") and verb in writes else ""
        if verb == "get":
            # A pod that is gone from the graph answers "not found" rather than "forbidden".
            foreign = self._graph.knows(asked.namespace, asked.name)
            return _no_relation(node) if foreign and not self._graph.runs(node, asked.namespace, asked.name) else None
        if verb in ("list", "watch"):
            if selected(asked.field_selector, "spec.nodeName") == node:
                return None
            if name := asked.name or selected(asked.field_selector, "metadata.name"):
                return None if self._graph.runs(node, asked.namespace, name) else _no_relation(node)
            return "can only list/watch pods with spec.nodeName field selector"
        return None if verb in ("create", "delete") else ""

    def _node(self, node: str, asked: Attributes) -> str | None:
        """NodeRestriction looks at the nodes that are written; reads are decided here."""
        if asked.subresource:
            return None if asked.subresource == "status" and asked.verb in WRITES else ""
        if asked.verb not in READS:
            return None if asked.verb in ("create", *WRITES) else ""
        name = asked.name or selected(asked.field_selector, "metadata.name")
        if not name:
            return f"node '{node}' cannot read all nodes, only its own Node object"
        return None if name == node else f"node '{node}' cannot read '{name}', only its own Node object"

    def _lease(self, node: str, asked: Attributes) -> str | None:
        if asked.verb not in OWN_VERBS:
            return "can only get, create, update, patch, or delete a node lease"
        if asked.namespace != LEASE_NAMESPACE:
            return f'can only access leases in the "{LEASE_NAMESPACE}" system namespace'
        if asked.verb == "create" or asked.name == node:
            return None
        return "can only access node lease with the same name as the requesting node"

    def _slice(self, node: str, asked: Attributes) -> str | None:
        """NodeRestriction looks at slices that are made; who owns the others is not known here."""
        if asked.subresource:
            return "cannot authorize ResourceSlice subresources"
        if asked.verb in ("list", "watch", "deletecollection"):
            if selected(asked.field_selector, "spec.nodeName") == node:
                return None
            return "can only list/watch/deletecollection resourceslices with nodeName field selector"
        return None if asked.verb == "create" else _no_relation(node)

    def _csinode(self, node: str, asked: Attributes) -> str | None:
        if asked.verb not in OWN_VERBS:
            return "can only get, create, update, patch, or delete a CSINode"
        if asked.subresource:
            return "cannot authorize CSINode subresources"
        if asked.verb == "create" or asked.name == node:
            return None
        return "can only access CSINode with the same name as the requesting node"


def _no_relation(node: str) -> str:
    return f"no relationship found between node '{node}' and this object"


def selected(field_selector: str, field: str) -> str:
    """The value a field selector pins a field to, or ""."""
    for part in field_selector.split(","):
        key, _, value = part.partition("=")
        if key == field:
            return value.removeprefix("=")
    return ""


_SPECIAL: dict[tuple[str, str], Callable[[NodeAuthorizer, str, Attributes], str | None]] = {
    ("", "secrets"): NodeAuthorizer._needed,
    ("", "configmaps"): NodeAuthorizer._needed,
    ("", "persistentvolumeclaims"): NodeAuthorizer._claim,
    ("", "persistentvolumes"): NodeAuthorizer._get,
    ("storage.k8s.io", "volumeattachments"): NodeAuthorizer._get,
    ("resource.k8s.io", "resourceslices"): NodeAuthorizer._slice,
    ("", "serviceaccounts"): NodeAuthorizer._service_account,
    ("", "pods"): NodeAuthorizer._pod,
    ("", "nodes"): NodeAuthorizer._node,
    ("coordination.k8s.io", "leases"): NodeAuthorizer._lease,
    ("storage.k8s.io", "csinodes"): NodeAuthorizer._csinode,
}
