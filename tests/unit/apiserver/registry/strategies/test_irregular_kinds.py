"""Irregular kinds: pods, namespaces, jobs, daemon sets, certificate requests."""

from __future__ import annotations

from typing import Any

import pytest

from api.resources import lookup
from apiserver.auth.user import UserInfo
from apiserver.registry.store import RequestContext
from apiserver.registry.strategies.qos import qos_class
from apiserver.registry.strategy import Strategy, strategy_for

Obj = dict[str, Any]


def ctx() -> RequestContext:
    return RequestContext(UserInfo("alice", ("dev", "system:authenticated")))


def strategy(plural: str, group: str = "") -> Strategy:
    resource = lookup(group, "v1", plural)
    assert resource is not None
    return strategy_for(resource)


def created(rules: Strategy, obj: Obj) -> Obj:
    rules.canonicalize(obj)
    rules.default(obj)
    obj["metadata"] |= {"uid": "uid-1", "creationTimestamp": "2026-01-01T00:00:00Z"}
    rules.prepare_create(ctx(), obj)
    assert rules.validate_create(ctx(), obj) == []
    return obj


def copied(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: copied(item) for key, item in value.items()}
    return [copied(item) for item in value] if isinstance(value, list) else value


def pod(**spec: Any) -> Obj:
    spec.setdefault("containers", [{"name": "main", "image": "nginx"}])
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web", "namespace": "default"}, "spec": spec}


def resources(**amounts: str) -> Obj:
    parts: Obj = {}
    for key, amount in amounts.items():
        kind, name = key.split("_")
        parts.setdefault(kind, {})[name] = amount
    return {"name": "main", "image": "nginx", "resources": parts}


FULL = {"limits_cpu": "1", "limits_memory": "1Gi", "requests_cpu": "1000m", "requests_memory": "1024Mi"}


@pytest.mark.parametrize(
    ("containers", "wanted"),
    [
        pytest.param([resources()], "BestEffort", id="nothing"),
        pytest.param([resources(requests_cpu="0")], "BestEffort", id="zero"),
        pytest.param([resources(requests_cpu="1")], "Burstable", id="only-a-request"),
        pytest.param([resources(**FULL)], "Guaranteed", id="all-equal"),
        pytest.param([resources(**FULL), resources()], "Burstable", id="one-without"),
        pytest.param([resources(**{**FULL, "requests_cpu": "500m"})], "Burstable", id="lower-request"),
        pytest.param([resources(limits_cpu="1", requests_cpu="1")], "Burstable", id="no-memory"),
    ],
)
def test_qos_class(containers: list[Obj], wanted: str) -> None:
    assert qos_class({"containers": containers}) == wanted


@pytest.mark.parametrize(
    ("spec", "status", "requested", "wanted"),
    [
        pytest.param({"nodeName": "n", "terminationGracePeriodSeconds": 30}, {}, None, 30, id="its-own"),
        pytest.param({"nodeName": "n", "terminationGracePeriodSeconds": 30}, {}, 5, 5, id="asked"),
        pytest.param({"nodeName": "n", "terminationGracePeriodSeconds": 30}, {}, 0, 0, id="forced"),
        pytest.param({"nodeName": "n", "terminationGracePeriodSeconds": -3}, {}, None, 1, id="negative"),
        pytest.param({"terminationGracePeriodSeconds": 30}, {}, None, 0, id="unbound"),
        pytest.param({"nodeName": "n"}, {"phase": "Succeeded"}, 30, 0, id="ended"),
    ],
)
def test_grace_period(spec: Obj, status: Obj, requested: int | None, wanted: int) -> None:
    assert strategy("pods").grace_period({"spec": spec, "status": status}, requested) == wanted


def test_other_kinds_are_deleted_at_once() -> None:
    assert strategy("configmaps").grace_period({}, 30) is None


def _updated(change: dict[str, Any]) -> list[str]:
    rules = strategy("pods")
    gone = {"key": "a", "operator": "Exists"}
    old = created(rules, pod(activeDeadlineSeconds=100, tolerations=[gone]))
    new = copied(old)
    for path, value in change.items():
        target: Any = new["spec"]
        *parents, last = path.split(".")
        for part in parents:
            target = target[int(part)] if part.isdecimal() else target[part]
        target[int(last) if last.isdecimal() else last] = value
    rules.prepare_update(ctx(), new, old)
    return [finding.field for finding in rules.validate_update(ctx(), new, old)]


@pytest.mark.parametrize(
    ("change", "fields"),
    [
        pytest.param({"containers.0.image": "nginx:2"}, [], id="image"),
        pytest.param({"activeDeadlineSeconds": 50}, [], id="deadline-shrinks"),
        pytest.param({"activeDeadlineSeconds": 500}, ["spec.activeDeadlineSeconds"], id="deadline-grows"),
        pytest.param({"containers.0.command": ["x"]}, ["spec"], id="command"),
        pytest.param({"nodeName": "n"}, ["spec"], id="node"),
        pytest.param({"tolerations": []}, ["spec.tolerations"], id="toleration-removed"),
        pytest.param(
            {"tolerations": [{"key": "a", "operator": "Exists"}, {"key": "b", "operator": "Exists"}]},
            [],
            id="toleration-added",
        ),
        pytest.param(
            {"containers": [{"name": "main", "image": "x"}, {"name": "b", "image": "x"}]},
            [
                *["spec.containers[0].terminationMessagePolicy", "spec.containers[0].imagePullPolicy"],
                *["spec.containers[1].terminationMessagePolicy", "spec.containers[1].imagePullPolicy"],
                "spec.containers",
            ],
            id="container-added-undefaulted",
        ),
    ],
)
def test_what_an_update_of_a_pod_may_change(change: dict[str, Any], fields: list[str]) -> None:
    assert _updated(change) == fields


def test_resize_changes_resources_only_and_keeps_the_class() -> None:
    rules = strategy("pods")
    main = resources(requests_cpu="100m", limits_cpu="200m", requests_memory="1Mi", limits_memory="2Mi")
    old = created(rules, pod(containers=[main]))
    resize = rules.for_subresource("resize")
    new = copied(old)
    new["spec"]["containers"][0]["resources"]["requests"]["cpu"] = "150m"
    new["spec"]["containers"][0]["image"] = "other"
    resize.prepare_update(ctx(), new, old)
    assert new["spec"]["containers"][0]["image"] == "nginx"
    assert new["metadata"]["generation"] == 2
    assert resize.validate_update(ctx(), new, old) == []
    full = copied(old)
    full["spec"]["containers"][0]["resources"]["requests"] = {"cpu": "200m", "memory": "2Mi"}
    resize.prepare_update(ctx(), full, old)
    findings = [str(finding) for finding in resize.validate_update(ctx(), full, old)]
    assert findings == ['spec: Invalid value: "Burstable": Pod QOS Class may not change as a result of resizing']


def test_ephemeral_containers_are_only_added() -> None:
    rules = strategy("pods").for_subresource("ephemeralcontainers")
    old = created(strategy("pods"), pod())
    new = copied(old)
    new["spec"]["ephemeralContainers"] = [{"name": "dbg", "image": "busybox", "targetContainerName": "main"}]
    rules.default(new)
    rules.prepare_update(ctx(), new, old)
    assert rules.validate_update(ctx(), new, old) == []
    gone = copied(new)
    gone["spec"]["ephemeralContainers"] = []
    rules.prepare_update(ctx(), gone, new)
    assert [finding.field for finding in rules.validate_update(ctx(), gone, new)] == ["spec.ephemeralContainers"]


def test_the_status_of_a_pod_keeps_its_class_and_shows_both_states() -> None:
    rules = strategy("pods")
    old = created(rules, pod())
    new = copied(old)
    new["status"] = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
    new["status"]["containerStatuses"] = [{"name": "main", "state": {"running": {}}}]
    status = rules.for_subresource("status")
    status.canonicalize(new)
    status.prepare_update(ctx(), new, old)
    assert new["status"]["qosClass"] == "BestEffort"
    assert new["status"]["containerStatuses"][0]["lastState"] == {}
    assert new["status"]["conditions"][0] == {
        "type": "Ready", "status": "True", "lastProbeTime": None, "lastTransitionTime": None,
    }  # fmt: skip


def test_namespaces_carry_their_name_and_their_finalizer() -> None:
    rules = strategy("namespaces")
    obj = created(rules, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "team"}})
    assert obj["metadata"]["labels"] == {"kubernetes.io/metadata.name": "team"}
    assert obj["spec"] == {"finalizers": ["kubernetes"]}
    assert obj["status"] == {"phase": "Active"}
    new = copied(obj)
    new["spec"]["finalizers"] = []
    rules.prepare_update(ctx(), new, obj)
    assert new["spec"] == {"finalizers": ["kubernetes"]}
    finalize = rules.for_subresource("finalize")
    new = copied(obj)
    new["spec"]["finalizers"] = []
    new["status"] = {"phase": "Gone"}
    finalize.prepare_update(ctx(), new, obj)
    assert new["spec"] == {"finalizers": []}
    assert new["status"] == {"phase": "Active"}


def job(**spec: Any) -> Obj:
    template = {"spec": {"restartPolicy": "Never", "containers": [{"name": "main", "image": "busybox"}]}}
    obj: Obj = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "sum", "namespace": "default"}}
    obj["spec"] = {"template": template, **spec}
    return obj


def test_jobs_get_a_selector_of_their_own() -> None:
    obj = created(strategy("jobs", "batch"), job())
    assert obj["spec"]["selector"] == {"matchLabels": {"batch.kubernetes.io/controller-uid": "uid-1"}}
    labels = obj["spec"]["template"]["metadata"]["labels"]
    assert labels["batch.kubernetes.io/job-name"] == "sum"
    assert labels["controller-uid"] == "uid-1"


@pytest.mark.parametrize(
    ("spec", "change", "fields"),
    [
        pytest.param({}, {"parallelism": 4}, [], id="parallelism"),
        pytest.param({}, {"suspend": True}, [], id="suspend"),
        pytest.param({}, {"completions": 3}, ["spec.completions"], id="completions"),
        pytest.param(
            {"completionMode": "Indexed", "completions": 2, "parallelism": 2},
            {"completions": 3, "parallelism": 3},
            [],
            id="elastic",
        ),
        pytest.param(
            {"completionMode": "Indexed", "completions": 2, "parallelism": 2},
            {"completions": 3},
            ["spec.completions"],
            id="elastic-out-of-step",
        ),
    ],
)
def test_what_an_update_of_a_job_may_change(spec: Obj, change: Obj, fields: list[str]) -> None:
    rules = strategy("jobs", "batch")
    old = created(rules, job(**spec))
    new = copied(old)
    new["spec"].update(change)
    rules.prepare_update(ctx(), new, old)
    assert [finding.field for finding in rules.validate_update(ctx(), new, old)] == fields


def test_a_daemon_set_counts_its_templates() -> None:
    rules = strategy("daemonsets", "apps")
    template = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "main", "image": "nginx"}]}}
    obj: Obj = {"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "d", "namespace": "default"}}
    obj["spec"] = {"selector": {"matchLabels": {"a": "b"}}, "template": template}
    old = created(rules, obj)
    key = "deprecated.daemonset.template.generation"
    assert old["metadata"]["annotations"] == {key: "1"}
    new = copied(old)
    new["spec"]["minReadySeconds"] = 5
    rules.prepare_update(ctx(), new, old)
    assert new["metadata"]["annotations"] == {key: "1"}
    new["spec"]["template"]["spec"]["containers"][0]["image"] = "nginx:2"
    rules.prepare_update(ctx(), new, old)
    assert new["metadata"]["annotations"] == {key: "2"}


def test_certificate_requests_tell_who_asked_and_are_decided_by_approval() -> None:
    rules = strategy("certificatesigningrequests", "certificates.k8s.io")
    request = (
        "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURSBSRVFVRVNULS0tLS0KTUg4d013SUJBREFBTUNvd0JRWURLMlZ3QXlFQVJHN2l0aDAzS1VN"
        "T2t2aXdKdXN6MldSNW1iMHpXUDR3NzVLWQpKWUhGSFpHZ0FEQUZCZ01yWlhBRFFRQzdRdFNrcHZQekhNK1d6UCtldjgydXhVS01t"
        "dkovdk1YcmptR1pzemZSCkRCUE9UZjE5dFE5YTU0UmlKU0pjUFZwNVJIS3g3a2tNRis5L1c5U0JmT1FOCi0tLS0tRU5EIENFUlRJ"
        "RklDQVRFIFJFUVVFU1QtLS0tLQo="
    )
    obj: Obj = {"apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest", "metadata": {"name": "c"}}
    obj["spec"] = {"request": request, "signerName": "example.com/a", "usages": ["client auth"], "username": "root"}
    old = created(rules, obj)
    assert old["spec"]["username"] == "alice"
    assert old["spec"]["groups"] == ["dev", "system:authenticated"]
    decision = {"conditions": [{"type": "Approved", "status": "True"}]}
    by_status = {**copied(old), "status": copied(decision)}
    status = rules.for_subresource("status")
    status.prepare_update(ctx(), by_status, old)
    assert [finding.field for finding in status.validate_update(ctx(), by_status, old)] == ["status.conditions"]
    approved = {**copied(old), "status": copied(decision)}
    approval = rules.for_subresource("approval")
    approval.prepare_update(ctx(), approved, old)
    assert approval.validate_update(ctx(), approved, old) == []
    assert approved["status"]["conditions"][0]["lastUpdateTime"]
    signed = {**copied(approved), "status": {"conditions": [{"type": "Approved", "status": "True", "reason": "Mine"}]}}
    status.prepare_update(ctx(), signed, approved)
    assert signed["status"]["conditions"] == approved["status"]["conditions"]
    undone = {**copied(approved), "status": {"conditions": [{"type": "Denied", "status": "True"}]}}
    approval.prepare_update(ctx(), undone, approved)
    assert [finding.text for finding in approval.validate_update(ctx(), undone, approved)] == [
        'Forbidden: updates may not remove a condition of type "Approved"'
    ]


@pytest.mark.parametrize(
    ("plural", "group", "old", "new", "findings"),
    [
        pytest.param(
            "configmaps", "", {"data": {"a": "b"}, "immutable": True}, {"data": {"a": "c"}, "immutable": True},
            ["data: Forbidden: field is immutable when `immutable` is set"], id="immutable-data",
        ),
        pytest.param(
            "configmaps", "", {"data": {"a": "b"}, "immutable": True}, {"data": {"a": "b"}},
            ["immutable: Forbidden: field is immutable when `immutable` is set"], id="immutable-off",
        ),
        pytest.param(
            "secrets", "", {"type": "a"}, {"type": "b"},
            ['type: Invalid value: "b": field is immutable'], id="secret-type",
        ),
        pytest.param(
            "priorityclasses", "scheduling.k8s.io", {"value": 5}, {"value": 6},
            ["value: Forbidden: may not be changed in an update."], id="priority",
        ),
        pytest.param(
            "runtimeclasses", "node.k8s.io", {"handler": "runc"}, {"handler": "kata"},
            ['handler: Invalid value: "kata": field is immutable'], id="handler",
        ),
        pytest.param(
            "endpointslices", "discovery.k8s.io", {"addressType": "IPv4"}, {"addressType": "IPv6"},
            ['addressType: Invalid value: "IPv6": field is immutable'], id="address-type",
        ),
    ],
)  # fmt: skip
def test_what_stays(plural: str, group: str, old: Obj, new: Obj, findings: list[str]) -> None:
    rules = strategy(plural, group)
    meta: Obj = {"name": "x"}
    if rules.resource.namespaced:
        meta["namespace"] = "default"
    before = {"metadata": dict(meta), **old}
    after = {"metadata": dict(meta), **new}
    for obj in (before, after):
        rules.default(obj)
    rules.prepare_update(ctx(), after, before)
    assert [str(finding) for finding in rules.validate_update(ctx(), after, before)] == findings


def test_a_priority_class_is_of_one_generation() -> None:
    rules = strategy("priorityclasses", "scheduling.k8s.io")
    old = created(rules, {"metadata": {"name": "high"}, "value": 5})
    new = {**copied(old), "description": "told", "globalDefault": True}
    rules.prepare_update(ctx(), new, old)
    assert (old["metadata"]["generation"], new["metadata"]["generation"]) == (1, 1)


def test_an_account_names_its_secrets_and_no_more() -> None:
    secrets = [{"name": "token", "namespace": "other", "kind": "Secret"}]
    made = created(strategy("serviceaccounts"), {"metadata": {"name": "bot", "namespace": "ns"}, "secrets": secrets})
    assert made["secrets"] == [{"name": "token"}]


@pytest.mark.parametrize(
    ("group", "plural", "obj"),
    [
        ("storage.k8s.io", "volumeattachments", {
            "spec": {"attacher": "a.example", "nodeName": "n", "source": {"persistentVolumeName": "v"}}
        }),
        ("flowcontrol.apiserver.k8s.io", "flowschemas", {
            "spec": {"priorityLevelConfiguration": {"name": "exempt"}, "rules": []}
        }),
        ("networking.k8s.io", "servicecidrs", {"spec": {"cidrs": ["10.9.0.0/24"]}}),
    ],
)  # fmt: skip
def test_a_status_write_leaves_the_metadata(group: str, plural: str, obj: Obj) -> None:
    rules = strategy(plural, group)
    old = created(rules, {"metadata": {"name": "one", "labels": {"a": "1"}}, **obj})
    new = copied(old)
    new["metadata"]["labels"] = {"a": "2"}
    new["metadata"]["annotations"] = {"b": "1"}
    rules.for_subresource("status").prepare_update(ctx(), new, old)
    assert new["metadata"]["labels"] == {"a": "1"}
    assert "annotations" not in new["metadata"]
