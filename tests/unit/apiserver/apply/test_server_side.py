from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apiserver.apply.merge import merged, removed
from apiserver.apply.ownership import plan_create, plan_update
from apiserver.apply.server_side import LAST_APPLIED, plan_apply
from apiserver.apply.shapes import root_shape
from machinery.errors import Conflict
from tests.unit.apiserver.apply.objects import (
    CONFIG_MAPS,
    DEPLOYMENTS,
    LATER,
    NOW,
    Obj,
    applied,
    config_map,
    deployment,
    owners,
)

data = st.dictionaries(st.sampled_from("abcd"), st.sampled_from("xyz"), max_size=4)


@given(data, data)
def test_applying_twice_is_applying_once(first: Obj, second: Obj) -> None:
    live = applied(CONFIG_MAPS, {}, config_map(first), "one")
    live = applied(CONFIG_MAPS, live, config_map(second), "two", force=True)
    once = plan_apply(CONFIG_MAPS, live, config_map(second), "two", force=False, now=LATER)
    assert once.managed == live["metadata"]["managedFields"]
    assert {**live, "metadata": {"name": "web"}} == once.obj


@given(data, data)
def test_managers_of_other_fields_commute(first: Obj, second: Obj) -> None:
    second = {key: value for key, value in second.items() if key not in first}
    configs = {"one": config_map(first), "two": config_map(second)}
    results = []
    for order in (("one", "two"), ("two", "one")):
        live: Obj = {}
        for manager in order:
            live = applied(CONFIG_MAPS, live, configs[manager], manager)
        results.append((live.get("data"), owners(live)))
    assert results[0] == results[1]


@given(data, data)
def test_giving_up_returns_to_what_was(first: Obj, second: Obj) -> None:
    second = {key: value for key, value in second.items() if key not in first}
    before = applied(CONFIG_MAPS, {}, config_map({**first, "keep": "1"}), "one")
    live = applied(CONFIG_MAPS, before, config_map(second), "two")
    after = applied(CONFIG_MAPS, live, config_map(), "two", now=LATER)
    assert after == before


@given(data, data, data)
def test_what_is_applied_is_there_and_its_manager_owns_it(was: Obj, first: Obj, second: Obj) -> None:
    live = config_map(was, uid="u")
    live["metadata"]["managedFields"] = plan_create(CONFIG_MAPS, live, "before", NOW)
    live = applied(CONFIG_MAPS, live, config_map(first), "one", force=True)
    live = applied(CONFIG_MAPS, live, config_map(second), "one", force=True)
    found = live.get("data") or {}
    assert second.items() <= found.items()
    assert owners(live).get("one", {}).get("f:data", {}).keys() == {f"f:{key}" for key in second}
    # What the manager gave up stays only where somebody else set it to the same.
    assert not [key for key in first if key in found and key not in second and was.get(key) != first[key]]


def test_conflicts_name_every_field_and_manager() -> None:
    live = applied(CONFIG_MAPS, {}, config_map({"a": "1", "b": "1"}), "alpha")
    new = config_map({"a": "1", "b": "1", "c": "1"})
    fields = plan_update(CONFIG_MAPS, live, new, live["metadata"]["managedFields"], "web", NOW)
    new["metadata"]["managedFields"] = fields
    with pytest.raises(Conflict) as refused:
        plan_apply(CONFIG_MAPS, new, config_map({"a": "2", "b": "1", "c": "2"}), "beta", force=False, now=NOW)
    assert refused.value.message == (
        'Apply failed with 2 conflicts: conflicts with "alpha":\n- .data.a\nconflicts with "web" using v1:\n- .data.c'
    )
    assert [cause["field"] for cause in (refused.value.details or {})["causes"]] == [".data.a", ".data.c"]
    forced = applied(CONFIG_MAPS, new, config_map({"a": "2", "c": "2"}), "beta", force=True)
    assert forced["data"] == {"a": "2", "b": "1", "c": "2"}
    assert owners(forced) == {"alpha": {"f:data": {"f:b": {}}}, "beta": {"f:data": {"f:a": {}, "f:c": {}}}}


def test_the_first_apply_finds_somebody_before() -> None:
    live = applied(CONFIG_MAPS, config_map({"z": "26"}, uid="u"), config_map({"q": "1"}), "alpha")
    assert owners(live) == {"alpha": {"f:data": {"f:q": {}}}, "before-first-apply": {"f:data": {".": {}, "f:z": {}}}}


def test_giving_up_a_struct_takes_its_defaults_along() -> None:
    config = deployment(strategy={"type": "Recreate"})
    live = applied(DEPLOYMENTS, {}, config, "one")
    live["spec"] = {**live["spec"], "strategy": {"type": "Recreate", "defaulted": 1}}
    after = applied(DEPLOYMENTS, live, deployment(), "one")
    assert "strategy" not in after["spec"]


def test_an_item_that_another_manager_shares_stays() -> None:
    one = deployment({"name": "main", "image": "i", "env": [{"name": "A", "value": "1"}]})
    live = applied(DEPLOYMENTS, {}, one, "one")
    live = applied(DEPLOYMENTS, live, deployment({"name": "main", "env": [{"name": "B", "value": "2"}]}), "two")
    container = live["spec"]["template"]["spec"]["containers"][0]
    assert container == {
        "name": "main",
        "image": "i",
        "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}],
    }
    live = applied(DEPLOYMENTS, live, deployment(), "one")
    assert live["spec"]["template"]["spec"]["containers"] == [{"name": "main", "env": [{"name": "B", "value": "2"}]}]


def test_client_side_apply_is_taken_over() -> None:
    last = msgspec.json.encode(config_map({"a": "1", "b": "2"})).decode()
    live = config_map({"a": "1", "b": "2"}, annotations={LAST_APPLIED: last})
    live["metadata"]["managedFields"] = plan_create(CONFIG_MAPS, live, "kubectl-client-side-apply", NOW)
    after = applied(CONFIG_MAPS, live, config_map({"a": "<9>"}), "kubectl")
    assert after["data"] == {"a": "<9>", "b": "2"}
    text = '{"apiVersion":"v1","data":{"a":"\\u003c9\\u003e"},"kind":"ConfigMap","metadata":{"name":"web"}}\n'
    assert after["metadata"]["annotations"][LAST_APPLIED] == text
    with pytest.raises(Conflict):
        plan_apply(CONFIG_MAPS, live, config_map({"a": "9"}), "other", force=False, now=NOW)


def test_changes_since_client_side_apply_are_conflicts() -> None:
    last = msgspec.json.encode(config_map({"a": "1"})).decode()
    live = config_map({"a": "5"}, annotations={LAST_APPLIED: last})
    live["metadata"]["managedFields"] = plan_create(CONFIG_MAPS, live, "kubectl-edit", NOW)
    with pytest.raises(Conflict):
        plan_apply(CONFIG_MAPS, live, config_map({"a": "9"}), "kubectl", force=False, now=NOW)


@pytest.mark.parametrize(
    ("live", "config", "result"),
    [
        pytest.param("ab", "cb", "acb", id="between"),
        pytest.param("abc", "ca", "bca", id="order-of-the-configuration"),
        pytest.param("", "ab", "ab", id="new"),
        pytest.param("ab", "", "ab", id="nothing-stated"),
        pytest.param("abcd", "db", "acdb", id="moved-and-kept"),
    ],
)
def test_order_of_merged_lists(live: str, config: str, result: str) -> None:
    shape = root_shape("", "v1", "ConfigMap")
    whole, stated = ({"metadata": {"finalizers": list(items)}} for items in (live, config))
    assert merged(shape, whole, stated)["metadata"]["finalizers"] == list(result)


def test_removal_shares_what_stays() -> None:
    shape = root_shape("", "v1", "ConfigMap")
    obj = config_map({"a": "1"}, labels={"l": "x"})
    assert removed(shape, obj, {"f:data": {"f:b": {}}}) is obj
    left = removed(shape, obj, {"f:data": {"f:a": {}}})
    assert left == config_map(None, labels={"l": "x"}) and left["metadata"] is obj["metadata"]
