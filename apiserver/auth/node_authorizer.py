"""What a kubelet may do: only what concerns its own node and the pods bound to it.

Owns: the graph node → pods → secrets, config maps, claims and service accounts, and the decisions made from it. Pods
are pushed in by the feed. Called for users `system:node:<name>` in group `system:nodes`; everybody else gets no
opinion.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from apiserver.auth.attributes import NO_OPINION, Attributes, Decision
from apiserver.auth.rbac import Rule, rules_of
from apiserver.auth.user import UserInfo

LEASE_NAMESPACE = "kube-node-lease"
READS = frozenset({"get", "list", "watch"})
WRITES = frozenset({"update", "patch"})
OWN_VERBS = frozenset({"get", "create", "update", "patch", "delete"})
_ALLOWED = Decision(True, "node")

Reference = tuple[str, str, str]  # (plural, namespace, name)


class _Named(msgspec.Struct):
    name: str = ""


class _SecretNamed(msgspec.Struct):
    secretName: str = ""


class _Claim(msgspec.Struct):
    claimName: str = ""


class _Source(msgspec.Struct):
    secret: _Named | None = None
    configMap: _Named | None = None


class _Projected(msgspec.Struct):
    sources: list[_Source] | None = None


class _Volume(msgspec.Struct):
    name: str = ""
    secret: _SecretNamed | None = None
    configMap: _Named | None = None
    persistentVolumeClaim: _Claim | None = None
    projected: _Projected | None = None
    ephemeral: dict[str, Any] | None = None


class _EnvFrom(msgspec.Struct):
    secretRef: _Named | None = None
    configMapRef: _Named | None = None


class _ValueFrom(msgspec.Struct):
    secretKeyRef: _Named | None = None
    configMapKeyRef: _Named | None = None


class _Env(msgspec.Struct):
    valueFrom: _ValueFrom | None = None


class _Container(msgspec.Struct):
    env: list[_Env] | None = None
    envFrom: list[_EnvFrom] | None = None


class _Spec(msgspec.Struct):
    nodeName: str = ""
    serviceAccountName: str = ""
    volumes: list[_Volume] | None = None
    containers: list[_Container] | None = None
    initContainers: list[_Container] | None = None
    ephemeralContainers: list[_Container] | None = None
    imagePullSecrets: list[_Named] | None = None


class _Meta(msgspec.Struct):
    name: str
    namespace: str = ""


class PodView(msgspec.Struct):
    """The part of a Pod that the graph needs; decoding it skips the rest."""

    metadata: _Meta
    spec: _Spec


decode_pod: Callable[[bytes], PodView] = msgspec.json.Decoder(PodView).decode


def references(pod: PodView) -> Iterator[Reference]:
    """What a pod makes its node read."""
    namespace, spec = pod.metadata.namespace, pod.spec
    if spec.serviceAccountName:
        yield ("serviceaccounts", namespace, spec.serviceAccountName)
    for secret in spec.imagePullSecrets or ():
        yield ("secrets", namespace, secret.name)
    for volume in spec.volumes or ():
        if volume.secret:
            yield ("secrets", namespace, volume.secret.secretName)
        if volume.configMap:
            yield ("configmaps", namespace, volume.configMap.name)
        if volume.persistentVolumeClaim:
            yield ("persistentvolumeclaims", namespace, volume.persistentVolumeClaim.claimName)
        if volume.ephemeral is not None:
            yield ("persistentvolumeclaims", namespace, f"{pod.metadata.name}-{volume.name}")
        for source in (volume.projected.sources if volume.projected else None) or ():
            if source.secret:
                yield ("secrets", namespace, source.secret.name)
            if source.configMap:
                yield ("configmaps", namespace, source.configMap.name)
    for container in (*(spec.containers or ()), *(spec.initContainers or ()), *(spec.ephemeralContainers or ())):
        for whole in container.envFrom or ():
            if whole.secretRef:
                yield ("secrets", namespace, whole.secretRef.name)
            if whole.configMapRef:
                yield ("configmaps", namespace, whole.configMapRef.name)
        for entry in container.env or ():
            if entry.valueFrom and entry.valueFrom.secretKeyRef:
                yield ("secrets", namespace, entry.valueFrom.secretKeyRef.name)
            if entry.valueFrom and entry.valueFrom.configMapKeyRef:
                yield ("configmaps", namespace, entry.valueFrom.configMapKeyRef.name)


class PodGraph:
    """Which node needs what. A reference is counted once per pod."""

    def __init__(self) -> None:
        self._pods: dict[tuple[str, str], tuple[str, frozenset[Reference]]] = {}
        self._needed: dict[tuple[str, Reference], int] = {}

    def put(self, raw: bytes) -> None:
        """A pod was created or changed."""
        try:
            pod = decode_pod(raw)
        except msgspec.DecodeError:
            return
        key = (pod.metadata.namespace, pod.metadata.name)
        if not pod.spec.nodeName:
            if key in self._pods:
                self.remove(*key)
            return
        entry = (pod.spec.nodeName, frozenset(references(pod)))
        known = self._pods.get(key)
        if known == entry:
            return
        if known is not None:
            self.remove(*key)
        self._pods[key] = entry
        for reference in entry[1]:
            edge = (entry[0], reference)
            self._needed[edge] = self._needed.get(edge, 0) + 1

    def remove(self, namespace: str, name: str) -> None:
        """A pod is gone."""
        node, found = self._pods.pop((namespace, name), ("", frozenset()))
        for reference in found:
            edge = (node, reference)
            left = self._needed[edge] - 1
            if left:
                self._needed[edge] = left
            else:
                del self._needed[edge]

    def clear(self) -> None:
        """Forget all, before a new list."""
        self._pods.clear()
        self._needed.clear()

    def needs(self, node: str, plural: str, namespace: str, name: str) -> bool:
        return (node, (plural, namespace, name)) in self._needed

    def runs(self, node: str, namespace: str, name: str) -> bool:
        """True when the pod is bound to the node."""
        return self._pods.get((namespace, name), ("",))[0] == node

    def knows(self, namespace: str, name: str) -> bool:
        """True when the pod is bound to any node."""
        return (namespace, name) in self._pods


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

    def _claim(self, node: str, asked: Attributes) -> str | None:
        if asked.subresource == "status":
            if asked.verb not in WRITES:
                return "can only get/update/patch this type"
        elif asked.verb != "get":
            return "can only get individual resources of this type"
        elif asked.subresource:
            return "cannot get subresource"
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
    ("", "serviceaccounts"): NodeAuthorizer._service_account,
    ("", "pods"): NodeAuthorizer._pod,
    ("", "nodes"): NodeAuthorizer._node,
    ("coordination.k8s.io", "leases"): NodeAuthorizer._lease,
    ("storage.k8s.io", "csinodes"): NodeAuthorizer._csinode,
}
