"""The owner graph, what it decides, and the conditions of a terminating namespace."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api import resources
from api.models import core_v1
from controller_manager.app import CONTROLLERS, chosen
from controller_manager.garbage_collector.graph import Graph, Metadata, Node, OwnerRef
from controller_manager.garbage_collector.plan import (
    Action,
    Delete,
    DropOwners,
    Keep,
    OwnerState,
    plan_collection,
)
from controller_manager.kinds import of_definition
from controller_manager.namespace import Remains, plan_conditions
from machinery.clock import VirtualClock

MAPS = resources.of(core_v1.ConfigMap)
PODS = resources.of(core_v1.Pod)


def item(uid: str, *owners: str, blocking: bool = True, **fields: object) -> Node:
    references = tuple(OwnerRef(uid=each, kind="ConfigMap", blockOwnerDeletion=blocking) for each in owners)
    metadata = Metadata(name=uid, namespace="default", uid=uid, ownerReferences=references or None, **fields)  # type: ignore[arg-type]
    return Node(MAPS, metadata)


SOLID, WAITING, ABSENT = OwnerState.SOLID, OwnerState.WAITING, OwnerState.ABSENT


@pytest.mark.parametrize(
    ("states", "finalizers", "dependents", "expected"),
    [
        pytest.param({}, (), False, Keep(), id="no owner"),
        pytest.param({"a": SOLID}, (), True, Keep(), id="its owner exists"),
        pytest.param({"a": SOLID, "b": ABSENT}, (), False, DropOwners(frozenset("b")), id="one of two is gone"),
        pytest.param(
            {"a": SOLID, "b": WAITING}, (), True, DropOwners(frozenset("b")), id="one waits, another needs it"
        ),
        pytest.param({"a": ABSENT}, (), True, Delete("Background"), id="gone"),
        pytest.param({"a": ABSENT}, ("orphan",), True, Delete("Orphan"), id="wants its own to be let go"),
        pytest.param({"a": ABSENT}, ("foregroundDeletion",), True, Delete("Foreground"), id="wants to wait"),
        pytest.param({"a": WAITING}, (), True, Delete("Foreground"), id="owner waits, has dependents itself"),
        pytest.param({"a": WAITING}, (), False, Delete("Background"), id="owner waits"),
        pytest.param({"a": WAITING, "b": ABSENT}, (), True, Delete("Foreground"), id="one waits, one is gone"),
    ],
)
def test_plan_collection(
    states: dict[str, OwnerState], finalizers: tuple[str, ...], dependents: bool, expected: Action
) -> None:
    owners = [OwnerRef(uid=uid) for uid in states]
    assert plan_collection(owners, states, finalizers=finalizers, has_dependents=dependents) == expected


@given(st.dictionaries(st.text("abc", min_size=1, max_size=2), st.sampled_from(OwnerState)), st.booleans())
def test_nothing_with_a_solid_owner_is_ever_deleted(states: dict[str, OwnerState], dependents: bool) -> None:
    action = plan_collection([OwnerRef(uid=uid) for uid in states], states, has_dependents=dependents)
    if SOLID in states.values() or not states:
        assert not isinstance(action, Delete)
    else:
        assert isinstance(action, Delete)


def test_the_graph_follows_changes_of_owners() -> None:
    graph = Graph()
    graph.put(item("child", "a", "b"))
    assert [each.metadata.uid for each in graph.dependents("a")] == ["child"], "even before the owner is seen"
    graph.put(item("child", "b", blocking=False))
    assert list(graph.dependents("a")) == []
    assert graph.blocking_dependents("b") == []
    graph.put(item("child", "b"))
    assert len(graph.blocking_dependents("b")) == 1
    graph.remove("child")
    assert list(graph.dependents("b")) == []
    assert graph._dependents == {}, "nothing is left behind"


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.frozensets(st.sampled_from("abcd")), st.booleans())))
def test_the_graph_is_what_its_nodes_say(steps: list[tuple[str, frozenset[str], bool]]) -> None:
    graph, nodes = Graph(), dict[str, frozenset[str]]()
    for uid, owners, gone in steps:
        if gone:
            graph.remove(uid)
            nodes.pop(uid, None)
        else:
            graph.put(item(uid, *owners))
            nodes[uid] = owners
        for owner in "abcd":
            expected = {each for each, of in nodes.items() if owner in of}
            assert {each.metadata.uid for each in graph.dependents(owner)} == expected


@pytest.mark.parametrize(
    ("fields", "waits", "orphans"),
    [
        pytest.param({}, False, False, id="alive"),
        pytest.param({"finalizers": ("foregroundDeletion",)}, False, False, id="not yet deleted"),
        pytest.param(
            {"deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": ("foregroundDeletion",)},
            True,
            False,
            id="waits",
        ),
        pytest.param(
            {"deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": ("orphan",)}, False, True, id="orphans"
        ),
    ],
)
def test_states_of_a_node(fields: dict[str, object], waits: bool, orphans: bool) -> None:
    assert (item("a", **fields).waits_for_dependents, item("a", **fields).orphans_dependents) == (waits, orphans)  # type: ignore[arg-type]


async def test_conditions_of_a_terminating_namespace() -> None:
    clock = VirtualClock()
    remains = [Remains(PODS, 2, ("example.com/a",)), Remains(MAPS, 0, ())]
    planned = {each["type"]: each for each in plan_conditions([], remains, [], clock)}
    assert planned["NamespaceContentRemaining"]["message"] == (
        "Some resources are remaining: pods. has 2 resource instances"
    )
    assert planned["NamespaceFinalizersRemaining"]["message"] == (
        "Some content in the namespace has finalizers remaining: example.com/a in 1 resource instances"
    )
    assert planned["NamespaceDeletionContentFailure"]["reason"] == "ContentDeleted"
    await clock.advance(60)
    known = [
        core_v1.NamespaceCondition(type=each["type"], status=each["status"], lastTransitionTime=clock._start)
        for each in planned.values()
    ]
    again = {each["type"]: each for each in plan_conditions(known, [], ["boom"], clock)}
    assert again["NamespaceDeletionDiscoveryFailure"]["lastTransitionTime"] == "2026-01-01T00:00:00Z", "unchanged"
    assert again["NamespaceContentRemaining"]["lastTransitionTime"] == "2026-01-01T00:01:00Z", "changed"
    assert (
        again["NamespaceDeletionContentFailure"]["status"],
        again["NamespaceDeletionContentFailure"]["message"],
    ) == (
        "True",
        "Failed to delete all resource types, 1 remaining: boom",
    )


@pytest.mark.parametrize(
    ("definition", "expected"),
    [
        pytest.param(
            {
                "spec": {
                    "group": "example.com",
                    "scope": "Namespaced",
                    "names": {"plural": "toys", "kind": "Toy"},
                    "versions": [
                        {"name": "v1", "served": True, "storage": False},
                        {"name": "v2", "served": True, "storage": True},
                    ],
                }
            },
            ("example.com", "v2", "toys", True),
            id="the stored version",
        ),
        pytest.param(
            {
                "spec": {
                    "group": "example.com",
                    "scope": "Cluster",
                    "names": {"plural": "toys", "kind": "Toy"},
                    "versions": [{"name": "v1", "served": True}],
                }
            },
            ("example.com", "v1", "toys", False),
            id="cluster-scoped",
        ),
        pytest.param({"spec": {"group": "example.com", "versions": []}}, None, id="unfinished"),
        pytest.param({}, None, id="empty"),
    ],
)
def test_of_definition(definition: dict[str, object], expected: tuple[str, str, str, bool] | None) -> None:
    found = of_definition(definition)
    assert (found and (found.group, found.version, found.plural, found.namespaced)) == expected


@pytest.mark.parametrize(
    ("wish", "expected"),
    [
        pytest.param("*", list(CONTROLLERS), id="all"),
        pytest.param("deployment-controller", ["deployment-controller"], id="one"),
        pytest.param(
            "*,-garbage-collector-controller",
            [each for each in CONTROLLERS if each != "garbage-collector-controller"],
            id="all but one",
        ),
        pytest.param("", [], id="none"),
    ],
)
def test_chosen(wish: str, expected: list[str]) -> None:
    assert chosen(wish) == expected


def test_an_unknown_controller_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown controllers: nope"):
        chosen("*,-nope")
