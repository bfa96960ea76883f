from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apiserver.auth.attributes import Attributes
from apiserver.auth.node_authorizer import NodeAuthorizer
from apiserver.auth.node_graph import PodGraph
from apiserver.auth.policy import NODE_RULES, parse_rules
from apiserver.auth.user import UserInfo

N1 = UserInfo("system:node:n1", ("system:nodes", "system:authenticated"))
POD = {
    "metadata": {"name": "web", "namespace": "a"},
    "spec": {
        "nodeName": "n1",
        "serviceAccountName": "robot",
        "imagePullSecrets": [{"name": "pull"}],
        "volumes": [
            {"name": "v1", "secret": {"secretName": "vol"}},
            {"name": "v2", "configMap": {"name": "conf"}},
            {"name": "v3", "projected": {"sources": [{"secret": {"name": "proj"}}, {"configMap": {"name": "root"}}]}},
            {"name": "v4", "persistentVolumeClaim": {"claimName": "data"}},
            {"name": "v5", "csi": {"driver": "d", "nodePublishSecretRef": {"name": "inline"}}},
        ],
        "initContainers": [{"name": "i", "envFrom": [{"secretRef": {"name": "envfrom"}}]}],
        "containers": [{"name": "c", "env": [{"name": "X", "valueFrom": {"secretKeyRef": {"name": "env"}}}]}],
    },
}


def asked(verb: str, resource: str, **more: Any) -> Attributes:
    return Attributes(verb=verb, is_resource=True, version="v1", resource=resource, **more)


@pytest.fixture
def nodes() -> NodeAuthorizer:
    graph = PodGraph()
    graph.put(msgspec.json.encode(POD))
    other = {"metadata": {"name": "other", "namespace": "a"}, "spec": {"nodeName": "n2", "serviceAccountName": "two"}}
    graph.put(msgspec.json.encode(other))
    return NodeAuthorizer(graph, parse_rules(NODE_RULES))


LEASES = {"group": "coordination.k8s.io"}


@pytest.mark.parametrize(
    ("request_", "allowed"),
    [
        *(
            pytest.param(asked("get", "secrets", namespace="a", name=name), True, id=f"secret-{name}")
            for name in ("pull", "vol", "proj", "inline", "envfrom", "env")
        ),
        pytest.param(asked("get", "secrets", namespace="a", name="other"), False, id="foreign-secret"),
        pytest.param(asked("get", "secrets", namespace="b", name="vol"), False, id="other-namespace"),
        pytest.param(asked("list", "secrets", namespace="a"), False, id="all-secrets"),
        pytest.param(asked("list", "secrets"), False, id="all-secrets-everywhere"),
        pytest.param(asked("update", "secrets", namespace="a", name="vol"), False, id="write-secret"),
        pytest.param(
            asked("watch", "secrets", namespace="a", field_selector="metadata.name=vol"), True, id="watch-one-secret"
        ),
        pytest.param(asked("get", "configmaps", namespace="a", name="conf"), True, id="config-map"),
        pytest.param(asked("get", "persistentvolumeclaims", namespace="a", name="data"), True, id="claim"),
        pytest.param(
            asked("create", "serviceaccounts", namespace="a", name="robot", subresource="token"), True, id="own-token"
        ),
        pytest.param(
            asked("create", "serviceaccounts", namespace="a", name="two", subresource="token"),
            False,
            id="foreign-token",
        ),
        pytest.param(asked("watch", "pods", field_selector="spec.nodeName=n1"), True, id="own-pods"),
        pytest.param(asked("watch", "pods"), False, id="all-pods"),
        pytest.param(asked("watch", "pods", field_selector="spec.nodeName=n2"), False, id="foreign-pods"),
        pytest.param(asked("get", "pods", namespace="a", name="other"), False, id="foreign-pod"),
        pytest.param(asked("patch", "pods", namespace="a", name="web", subresource="status"), True, id="own-status"),
        pytest.param(
            asked("patch", "pods", namespace="a", name="other", subresource="status"),
            True,
            id="status-is-restricted-later",
        ),
        pytest.param(asked("update", "pods", namespace="a", name="web"), False, id="pods-themselves-are-not-changed"),
        pytest.param(asked("create", "pods", namespace="a", name="web", subresource="eviction"), True, id="eviction"),
        pytest.param(
            asked("patch", "persistentvolumeclaims", namespace="a", name="data", subresource="status"),
            True,
            id="status-of-a-claim",
        ),
        pytest.param(asked("delete", "pods", namespace="a", name="gone"), True, id="unknown-pod-is-not-found"),
        pytest.param(asked("create", "nodes"), True, id="register"),
        pytest.param(asked("patch", "nodes", name="n1", subresource="status"), True, id="own-node"),
        pytest.param(asked("patch", "nodes", name="n2", subresource="status"), True, id="nodes-are-restricted-later"),
        pytest.param(asked("delete", "nodes", name="n1"), False, id="no-node-deletion"),
        pytest.param(asked("update", "leases", namespace="kube-node-lease", name="n1", **LEASES), True, id="own-lease"),
        pytest.param(
            asked("update", "leases", namespace="kube-node-lease", name="n2", **LEASES), False, id="foreign-lease"
        ),
        pytest.param(asked("update", "leases", namespace="default", name="n1", **LEASES), False, id="other-lease"),
        pytest.param(asked("create", "events", namespace="a"), True, id="event"),
        pytest.param(asked("list", "services"), True, id="services"),
        pytest.param(asked("delete", "deployments", group="apps", namespace="a", name="x"), False, id="unrelated"),
    ],
)
def test_what_a_node_may_do(nodes: NodeAuthorizer, request_: Attributes, allowed: bool) -> None:
    assert nodes.decide(N1, request_).allowed is allowed


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (asked("list", "configmaps", namespace="a"), "No Object name found"),
        (asked("list", "configmaps"), "can only read namespaced object of this type"),
        (asked("create", "secrets", namespace="a"), "can only read resources of this type"),
        (asked("get", "secrets", namespace="a", name="x"), "no relationship found between node 'n1' and this object"),
        (asked("get", "nodes", name="n2"), "node 'n1' cannot read 'n2', only its own Node object"),
        (asked("list", "nodes"), "node 'n1' cannot read all nodes, only its own Node object"),
        (asked("delete", "nodes", name="n2"), ""),
        (asked("list", "pods", namespace="a"), "can only list/watch pods with spec.nodeName field selector"),
        (asked("list", "persistentvolumeclaims", namespace="a"), "can only get individual resources of this type"),
        (
            asked("list", "serviceaccounts", namespace="a"),
            "can only create tokens for individual service accounts",
        ),
        (
            asked("list", "leases", namespace="kube-node-lease", **LEASES),
            "can only get, create, update, patch, or delete a node lease",
        ),
        (
            asked("list", "csinodes", group="storage.k8s.io"),
            "can only get, create, update, patch, or delete a CSINode",
        ),
    ],
)
def test_refusals_have_reasons(nodes: NodeAuthorizer, request_: Attributes, reason: str) -> None:
    assert nodes.decide(N1, request_) == (False, reason)


@pytest.mark.parametrize(
    "user",
    [
        pytest.param(UserInfo("system:node:n1"), id="name-without-group"),
        pytest.param(UserInfo("n1", ("system:nodes",)), id="group-without-name"),
    ],
)
def test_others_get_no_opinion(nodes: NodeAuthorizer, user: UserInfo) -> None:
    assert not nodes.decide(user, asked("list", "services")).allowed


pods = st.tuples(st.sampled_from("pq"), st.sampled_from(["", "n1", "n2"]), st.sampled_from(["s1", "s2"]))


@given(st.lists(st.one_of(pods, st.sampled_from("pq")), max_size=12))
def test_the_graph_is_what_the_last_events_say(events: list[Any]) -> None:
    graph = PodGraph()
    now: dict[str, tuple[str, str]] = {}
    for event in events:
        if isinstance(event, str):
            now.pop(event, None)
            graph.remove("a", event)
        else:
            name, node, secret = event
            now[name] = (node, secret)
            spec = {"nodeName": node, "imagePullSecrets": [{"name": secret}]}
            graph.put(msgspec.json.encode({"metadata": {"name": name, "namespace": "a"}, "spec": spec}))
    for node in ("n1", "n2"):
        for secret in ("s1", "s2"):
            assert graph.needs(node, "secrets", "a", secret) is ((node, secret) in now.values())
        for name in "pq":
            assert graph.runs(node, "a", name) is (now.get(name, ("",))[0] == node)


def test_volumes_are_reached_through_claims(nodes: NodeAuthorizer) -> None:
    graph = nodes._graph  # the feed's end of it
    reference = {"name": "csi", "namespace": "store"}
    volume = {
        "metadata": {"name": "pv-1"},
        "spec": {"claimRef": {"namespace": "a", "name": "data"}, "csi": {"nodeStageSecretRef": reference}},
    }
    secret = asked("get", "secrets", namespace="store", name="csi")
    one = asked("get", "persistentvolumes", name="pv-1")
    assert not nodes.decide(N1, one).allowed
    graph.put_volume(msgspec.json.encode(volume))
    n2 = UserInfo("system:node:n2", ("system:nodes",))
    assert [nodes.decide(node, each).allowed for node in (N1, n2) for each in (one, secret)] == [
        True, True, False, False,
    ]  # fmt: skip
    assert not nodes.decide(N1, asked("list", "persistentvolumes")).allowed
    graph.put_volume(msgspec.json.encode({**volume, "spec": {"claimRef": {"namespace": "a", "name": "other"}}}))
    assert not nodes.decide(N1, one).allowed
    assert not nodes.decide(N1, secret).allowed


def test_attachments_belong_to_their_node(nodes: NodeAuthorizer) -> None:
    nodes._graph.put_attachment(msgspec.json.encode({"metadata": {"name": "va"}, "spec": {"nodeName": "n1"}}))
    wanted = asked("get", "volumeattachments", group="storage.k8s.io", name="va")
    assert nodes.decide(N1, wanted).allowed
    assert not nodes.decide(UserInfo("system:node:n2", ("system:nodes",)), wanted).allowed
    nodes._graph.remove_attachment("va")
    assert not nodes.decide(N1, wanted).allowed
