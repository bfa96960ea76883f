"""The generic strategy: metadata, generation, status, subresources."""

from __future__ import annotations

from typing import Any

import pytest

from api.resources import RESOURCES, Resource, Subresource, lookup
from apiserver.auth.user import UserInfo
from apiserver.registry.store import RequestContext
from apiserver.registry.strategy import Strategy, strategy_for

Obj = dict[str, Any]


def ctx() -> RequestContext:
    return RequestContext(UserInfo("tester"))


def strategy(plural: str, group: str = "", version: str = "v1") -> Strategy:
    resource = lookup(group, version, plural)
    assert resource is not None
    return strategy_for(resource)


def config_map(**meta: Any) -> Obj:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "web", "namespace": "default", **meta}}


def deployment(**spec: Any) -> Obj:
    template = {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "main", "image": "nginx"}]}}
    obj: Obj = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": "default"}}
    obj["spec"] = {"selector": {"matchLabels": {"app": "web"}}, "template": template, **spec}
    return obj


def created(rules: Strategy, obj: Obj) -> Obj:
    rules.canonicalize(obj)
    rules.default(obj)
    obj["metadata"]["uid"] = "uid-1"
    obj["metadata"]["creationTimestamp"] = "2026-01-01T00:00:00Z"
    rules.prepare_create(ctx(), obj)
    assert rules.validate_create(ctx(), obj) == []
    return obj


def changed(obj: Obj, **fields: Any) -> Obj:
    copy = {**obj, "metadata": dict(obj["metadata"]), **fields}
    if "spec" in obj and "spec" not in fields:
        copy["spec"] = dict(obj["spec"])
    return copy


@pytest.mark.parametrize("resource", [pytest.param(r, id=f"{r.group}-{r.version}-{r.plural}") for r in RESOURCES])
def test_every_resource_survives_an_almost_empty_object(resource: Any) -> None:
    """Whatever is missing, the answer is a list of findings and never an exception."""
    rules = strategy_for(resource)
    obj: Obj = {"apiVersion": resource.group_version, "kind": resource.kind, "metadata": {"name": "x"}}
    if resource.namespaced:
        obj["metadata"]["namespace"] = "default"
    rules.canonicalize(obj)
    rules.default(obj)
    obj["metadata"]["uid"] = "uid-1"
    obj.setdefault("spec", {})
    rules.prepare_create(ctx(), obj)
    rules.validate_create(ctx(), obj)
    rules.warnings(obj)
    fields = rules.selectable_fields(obj)
    assert set(fields) == rules.field_labels


@pytest.mark.parametrize(
    ("meta", "field", "text"),
    [
        pytest.param({"name": ""}, "metadata.name", "Required value: name or generateName is required", id="no-name"),
        pytest.param(
            {"labels": {"": "x"}}, "metadata.labels", 'Invalid value: "": name part must be non-empty', id="key"
        ),
        pytest.param(
            {"finalizers": ["nope"]},
            "metadata.finalizers[0]",
            'Invalid value: "nope": name is neither a standard finalizer name nor is it fully qualified',
            id="finalizer",
        ),
        pytest.param(
            {"annotations": {"a": "x" * (256 * 1024)}},
            "metadata.annotations",
            "Too long: may not be more than 262144 bytes",
            id="annotations",
        ),
        pytest.param(
            {"ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "x"}]},
            "metadata.ownerReferences.uid",
            'Invalid value: "": must not be empty',
            id="owner",
        ),
    ],
)
def test_metadata_of_new_objects(meta: Obj, field: str, text: str) -> None:
    rules = strategy("configmaps")
    findings = rules.validate_create(ctx(), config_map(**meta))
    assert (field, text) in [(finding.field, finding.text) for finding in findings]


def test_cluster_scoped_objects_have_no_namespace() -> None:
    rules = strategy("nodes")
    findings = rules.validate_create(ctx(), {"metadata": {"name": "n", "namespace": "default"}})
    assert [str(finding) for finding in findings] == ["metadata.namespace: Forbidden: not allowed on this type"]


def test_an_update_inherits_what_the_client_left_out() -> None:
    rules = strategy("configmaps")
    old = created(rules, config_map())
    new = {"metadata": {"name": "web", "creationTimestamp": "2020-01-01T00:00:00Z"}, "data": {"a": "b"}}
    rules.prepare_update(ctx(), new, old)
    assert new["metadata"] == old["metadata"]
    assert rules.validate_update(ctx(), new, old) == []


def test_metadata_findings_of_an_update_are_told_twice() -> None:
    rules = strategy("configmaps")
    old = created(rules, config_map())
    new = changed(old)
    new["metadata"]["uid"] = "other"
    rules.prepare_update(ctx(), new, old)
    findings = [str(finding) for finding in rules.validate_update(ctx(), new, old)]
    assert findings == ['metadata.uid: Invalid value: "other": field is immutable'] * 2


def test_no_finalizer_is_added_to_a_dying_object() -> None:
    rules = strategy("configmaps")
    old = created(rules, config_map(finalizers=["example.com/a"]))
    old["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    new = changed(old)
    new["metadata"]["finalizers"] = ["example.com/a", "example.com/b"]
    rules.prepare_update(ctx(), new, old)
    finding = rules.validate_update(ctx(), new, old)[0]
    assert finding.reason == "FieldValueForbidden"
    assert 'found new finalizers []string{"example.com/b"}' in finding.text


def test_generation_counts_changes_of_the_spec_only() -> None:
    rules = strategy("deployments", "apps")
    old = created(rules, deployment(replicas=1))
    assert old["metadata"]["generation"] == 1
    labelled = changed(old)
    labelled["metadata"]["labels"] = {"a": "b"}
    rules.prepare_update(ctx(), labelled, old)
    assert labelled["metadata"]["generation"] == 1
    scaled = changed(old)
    scaled["spec"]["replicas"] = 2
    rules.prepare_update(ctx(), scaled, old)
    assert scaled["metadata"]["generation"] == 2


def test_annotations_of_a_deployment_raise_its_generation() -> None:
    rules = strategy("deployments", "apps")
    old = created(rules, deployment(replicas=1))
    new = changed(old)
    new["metadata"]["annotations"] = {"a": "b"}
    rules.prepare_update(ctx(), new, old)
    assert new["metadata"]["generation"] == 2


def test_nodes_register_with_their_status_and_keep_it_on_updates() -> None:
    rules = strategy("nodes")
    node: Obj = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}, "status": {"capacity": {"cpu": "2"}}}
    old = created(rules, node)
    assert old["status"]["allocatable"] == {"cpu": "2"}
    new = changed(old, status={})
    rules.prepare_update(ctx(), new, old)
    assert new["status"] == old["status"]


def test_the_main_resource_keeps_the_status_and_the_subresource_keeps_the_rest() -> None:
    rules = strategy("deployments", "apps")
    old = created(rules, deployment(replicas=1))
    new = changed(old, status={"replicas": 7})
    rules.prepare_update(ctx(), new, old)
    assert new["status"] == {}
    status = rules.for_subresource("status")
    new = changed(old, status={"replicas": 7, "observedGeneration": 1})
    new["spec"]["replicas"] = 9
    new["metadata"]["labels"] = {"dropped": "x"}
    status.prepare_update(ctx(), new, old)
    assert new["spec"]["replicas"] == 1
    assert new["status"] == {"replicas": 7, "observedGeneration": 1}
    assert "labels" not in new["metadata"]
    assert new["metadata"]["generation"] == 1
    assert status.validate_update(ctx(), new, old) == []


def test_scale_shows_and_writes_replicas() -> None:
    rules = strategy("deployments", "apps")
    old = created(rules, deployment(replicas=3))
    scale = rules.for_subresource("scale")
    shown = scale.view(old)
    assert shown["kind"] == "Scale"
    assert shown["spec"] == {"replicas": 3}
    assert shown["status"] == {"replicas": 0, "selector": "app=web"}
    new = scale.merge(ctx(), old, {"kind": "Scale", "metadata": {"name": "web"}, "spec": {"replicas": 5}})
    scale.prepare_update(ctx(), new, old)
    assert new["spec"]["replicas"] == 5
    assert new["metadata"]["generation"] == 2
    assert old["spec"]["replicas"] == 3


def widget(**fields: Any) -> Obj:
    return {
        "apiVersion": "example.com/v1",
        "kind": "Widget",
        "metadata": {"name": "w", "namespace": "default"},
        **fields,
    }


@pytest.mark.parametrize(
    ("subresources", "change", "generation"),
    [
        pytest.param({}, {"status": {"a": 1}}, 2, id="status-is-a-field-like-any-other"),
        pytest.param({"status": Subresource("Widget")}, {"status": {"a": 1}}, 1, id="status-apart"),
        pytest.param({"status": Subresource("Widget")}, {"data": 5}, 2, id="any-field-counts"),
    ],
)
def test_custom_resources(subresources: Any, change: Obj, generation: int) -> None:
    rules = strategy_for(Resource("example.com", "v1", "widgets", "Widget", subresources=subresources))
    assert not rules.allow_unconditional_update
    old = created(rules, widget(spec={"empty": "", "none": None}))
    assert old["spec"] == {"empty": "", "none": None}
    new = changed(old, **change)
    rules.prepare_update(ctx(), new, old)
    assert new["metadata"]["generation"] == generation
    assert rules.validate_update(ctx(), new, old) == []
