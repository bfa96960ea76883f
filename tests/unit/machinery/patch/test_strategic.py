"""Strategic merge: merge keys, directives and upstream's texts, on a schema small enough to read."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from machinery.errors import BadRequest, StatusError
from machinery.patch import apply_strategic_merge


@dataclass
class Node:
    """The least that a merge asks of a schema."""

    fields: Mapping[str, "Node"] = field(default_factory=dict)
    items: "Node | None" = None
    patch_strategy: tuple[str, ...] = ()
    patch_merge_key: str = ""

    def child(self, key: str, /) -> "Node | None":
        return self.fields.get(key)


ENV = Node(patch_strategy=("merge",), patch_merge_key="name", items=Node())
CONTAINERS = Node(
    patch_strategy=("merge",), patch_merge_key="name", items=Node({"env": ENV, "args": Node(items=Node())})
)
SCHEMA = Node(
    {
        "containers": CONTAINERS,
        "finalizers": Node(patch_strategy=("merge",), items=Node()),
        "tolerations": Node(items=Node()),
        "volumes": Node(patch_strategy=("merge", "retainKeys"), patch_merge_key="name", items=Node()),
        "strategy": Node(patch_strategy=("retainKeys",)),
        "keyless": Node(patch_strategy=("merge",), items=Node()),
    }
)
DOC: dict[str, Any] = {
    "replicas": 2,
    "labels": {"color": "red", "tier": "web"},
    "finalizers": ["a", "b"],
    "containers": [
        {"name": "main", "image": "nginx:1", "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]},
        {"name": "side", "image": "busybox", "args": ["a", "b"]},
    ],
    "tolerations": [{"key": "t1"}],
    "volumes": [{"name": "data", "emptyDir": {}}],
    "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}},
}
MAIN, SIDE = DOC["containers"]
NEW = {"name": "new", "image": "x"}


@pytest.mark.parametrize(
    ("patch", "changed"),
    [
        pytest.param({}, {}, id="empty"),
        pytest.param({"replicas": 3}, {"replicas": 3}, id="scalar"),
        pytest.param({"labels": {"color": None, "team": "x"}}, {"labels": {"tier": "web", "team": "x"}}, id="map"),
        pytest.param(
            {"labels": {"$patch": "replace", "only": "1"}}, {"labels": {"only": "1"}}, id="map replaced by directive"
        ),
        pytest.param({"labels": {"$patch": "delete"}}, {"labels": {}}, id="map deleted by directive"),
        pytest.param(
            {"containers": [{"name": "main", "image": "nginx:2"}]},
            {"containers": [{**MAIN, "image": "nginx:2"}, SIDE]},
            id="merge by key",
        ),
        pytest.param({"containers": [NEW]}, {"containers": [NEW, MAIN, SIDE]}, id="new elements come first"),
        pytest.param(
            {"containers": [{"name": "side", "$patch": "delete"}]}, {"containers": [MAIN]}, id="delete an element"
        ),
        pytest.param({"containers": [{"$patch": "replace"}, NEW]}, {"containers": [NEW]}, id="replace the list"),
        pytest.param(
            {"containers": [{"name": "main", "env": [{"name": "A", "$patch": "delete"}, {"name": "C", "value": "3"}]}]},
            {"containers": [{**MAIN, "env": [{"name": "C", "value": "3"}, {"name": "B", "value": "2"}]}, SIDE]},
            id="nested list",
        ),
        pytest.param(
            {"containers": [{"name": "side", "args": ["x"]}]},
            {"containers": [MAIN, {**SIDE, "args": ["x"]}]},
            id="atomic list inside",
        ),
        pytest.param({"tolerations": [{"key": "t2"}]}, {"tolerations": [{"key": "t2"}]}, id="atomic list"),
        pytest.param({"tolerations": None}, {"tolerations": None}, id="null removes"),
        pytest.param({"finalizers": ["c", "a"]}, {"finalizers": ["c", "a", "b"]}, id="primitives merge"),
        pytest.param({"$deleteFromPrimitiveList/finalizers": ["a"]}, {"finalizers": ["b"]}, id="delete primitives"),
        pytest.param(
            {"$deleteFromPrimitiveList/finalizers": ["a"], "finalizers": ["z"]},
            {"finalizers": ["z", "b"]},
            id="delete and add primitives",
        ),
        pytest.param(
            {"$setElementOrder/containers": [{"name": "side"}, {"name": "main"}]},
            {"containers": [SIDE, MAIN]},
            id="order only",
        ),
        pytest.param(
            {"$setElementOrder/containers": [{"name": "side"}, {"name": "new"}], "containers": [NEW]},
            {"containers": [MAIN, SIDE, NEW]},
            id="order with an addition keeps the server's place",
        ),
        pytest.param({"$setElementOrder/finalizers": ["b", "a"]}, {"finalizers": ["b", "a"]}, id="order of primitives"),
        pytest.param(
            {"volumes": [{"name": "data", "$retainKeys": ["name", "hostPath"], "hostPath": {"path": "/h"}}]},
            {"volumes": [{"name": "data", "hostPath": {"path": "/h"}}]},
            id="retain keys of an element",
        ),
        pytest.param(
            {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}, {"strategy": {"type": "Recreate"}}, id="retain"
        ),
        pytest.param(
            {"fresh": {"$patch": "replace", "a": None, "b": [{"$patch": "delete", "name": "x"}, {"c": 1}]}},
            {"fresh": {"b": [{"c": 1}]}},
            id="directives do not leak into new parts",
        ),
    ],
)
def test_merges(patch: dict[str, Any], changed: dict[str, Any]) -> None:
    before = copy.deepcopy((DOC, patch))
    expected = {key: value for key, value in {**DOC, **changed}.items() if value is not None}
    assert apply_strategic_merge(DOC, patch, SCHEMA) == expected
    assert before == (DOC, patch)


@pytest.mark.parametrize(
    ("patch", "message"),
    [
        pytest.param(
            {"labels": {"$patch": "explode"}},
            "unknown patch type: explode in map: map[$patch:explode]",
            id="unknown directive",
        ),
        pytest.param(
            {"containers": [{"name": "main", "$patch": "explode"}]},
            "unknown patch type: explode in map: map[$patch:explode name:main]",
            id="unknown directive in a list",
        ),
        pytest.param(
            {"containers": [{"image": "nokey"}]},
            "map: map[image:nokey] does not contain declared merge key: name",
            id="no merge key",
        ),
        pytest.param({"keyless": [{"a": 1}]}, "cannot merge lists without merge key", id="no declared key"),
        pytest.param(
            {"containers": [{"$patch": "merge"}]},
            "merging lists cannot yet be specified in the patch",
            id="merge directive",
        ),
    ],
)
def test_bad_patches_are_500_with_upstreams_text(patch: dict[str, Any], message: str) -> None:
    doc = {**DOC, "keyless": [{"a": 2}]}
    with pytest.raises(StatusError) as caught:
        apply_strategic_merge(doc, patch, SCHEMA)
    assert caught.value.to_status() == {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": message,
        "code": 500,
    }


@pytest.mark.parametrize(
    ("patch", "message"),
    [
        pytest.param({"$retainKeys": "type"}, "invalid patch format of retainKeys", id="no list of keys"),
        pytest.param(
            {"strategy": {"$retainKeys": ["type"], "other": 1}}, "invalid patch format of retainKeys", id="other keys"
        ),
        pytest.param(
            {"$deleteFromPrimitiveList/finalizers": "a"}, "invalid patch format of primitive list", id="primitives"
        ),
        pytest.param({"$setElementOrder/containers": {}}, "invalid patch format of setElementOrder list", id="order"),
    ],
)
def test_directives_of_wrong_types_are_bad_requests(patch: dict[str, Any], message: str) -> None:
    with pytest.raises(BadRequest) as caught:
        apply_strategic_merge(DOC, patch, SCHEMA)
    assert caught.value.message == message


def test_order_must_agree_with_the_patch() -> None:
    patch = {
        "$setElementOrder/containers": [{"name": "a"}, {"name": "b"}],
        "containers": [{"name": "b"}, {"name": "a"}],
    }
    with pytest.raises(StatusError, match=r"doesn't match \$setElementOrder list"):
        apply_strategic_merge(DOC, patch, SCHEMA)


def test_untouched_parts_are_shared() -> None:
    result = apply_strategic_merge(DOC, {"replicas": 3, "containers": [{"name": "side", "image": "x"}]}, SCHEMA)
    assert result["containers"][0] is MAIN
    assert result["labels"] is DOC["labels"]


_names = st.sampled_from(["main", "side", "x", "y"])
_element = st.fixed_dictionaries(
    {"name": _names}, optional={"image": st.sampled_from(["1", "2"]), "$patch": st.sampled_from(["delete", "replace"])}
)
_directive_free = st.fixed_dictionaries({"name": _names}, optional={"image": st.sampled_from(["1", "2"])})
_patch = st.fixed_dictionaries(
    {},
    optional={
        "containers": st.lists(_directive_free, max_size=3, unique_by=lambda e: str(e["name"])),
        "finalizers": st.lists(st.sampled_from("abcd"), max_size=3),
        "$deleteFromPrimitiveList/finalizers": st.lists(st.sampled_from("xy"), max_size=3),
        "labels": st.dictionaries(st.sampled_from(["color", "z"]), st.none() | st.text(max_size=1)),
        "replicas": st.integers(0, 3),
    },
)


@given(_patch)
def test_applying_twice_changes_nothing_more(patch: dict[str, Any]) -> None:
    once = apply_strategic_merge(DOC, patch, SCHEMA)
    assert apply_strategic_merge(once, patch, SCHEMA) == once


@given(
    st.dictionaries(
        st.sampled_from(["containers", "$setElementOrder/containers", "labels", "$retainKeys", "$patch", "finalizers"]),
        st.recursive(
            st.none() | st.text(max_size=2) | st.integers(),
            lambda c: (
                st.lists(c | _element, max_size=3)
                | st.dictionaries(st.sampled_from(["name", "$patch", "a", "$retainKeys"]), c, max_size=3)
            ),
            max_leaves=8,
        ),
    )
)
def test_any_patch_succeeds_or_is_refused_and_never_touches_the_input(patch: dict[str, Any]) -> None:
    before = copy.deepcopy((DOC, patch))
    try:
        apply_strategic_merge(DOC, patch, SCHEMA)
    except StatusError as error:
        assert error.code in (400, 500)
    assert before == (DOC, patch)


def test_what_kubectl_apply_sends() -> None:
    """Recorded from kubectl 1.32 after the containers were turned round, one image changed and one variable removed."""
    patch = {
        "$setElementOrder/containers": [{"name": "side"}, {"name": "main"}],
        "containers": [
            {
                "$setElementOrder/env": [{"name": "B"}],
                "env": [{"$patch": "delete", "name": "A"}],
                "image": "nginx:99",
                "name": "main",
            }
        ],
    }
    merged = apply_strategic_merge(DOC, patch, SCHEMA)
    assert merged["containers"] == [SIDE, {**MAIN, "image": "nginx:99", "env": [{"name": "B", "value": "2"}]}]
