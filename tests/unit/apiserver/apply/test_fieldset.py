from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apiserver.apply import fieldset
from apiserver.apply.fieldset import FieldSet

Paths = frozenset[tuple[str, ...]]

paths = st.frozensets(
    st.lists(st.sampled_from(["f:a", "f:b", 'k:{"n":"x"}', 'v:"s"']), min_size=1, max_size=4).map(tuple)
)


def made(members: Paths) -> FieldSet:
    result: FieldSet = {}
    for path in members:
        result = fieldset.union(result, fieldset.of_path(*path))
    return result


def members(node: FieldSet, prefix: tuple[str, ...] = ()) -> Paths:
    found: set[tuple[str, ...]] = set()
    for key, below in node.items():
        if key == ".":
            continue
        path = (*prefix, key)
        if not below or "." in below:
            found.add(path)
        found |= members(below, path)
    return frozenset(found)


@given(paths)
def test_a_set_holds_its_members(some: Paths) -> None:
    assert members(made(some)) == some
    assert all(fieldset.has(made(some), path) for path in some)


@given(paths, paths)
def test_algebra_is_that_of_sets(left: Paths, right: Paths) -> None:
    ours, theirs = made(left), made(right)
    assert members(fieldset.union(ours, theirs)) == left | right
    assert members(fieldset.difference(ours, theirs)) == left - right
    assert members(fieldset.intersection(ours, theirs)) == left & right


@given(paths, paths)
def test_without_takes_everything_below(left: Paths, right: Paths) -> None:
    gone = {path for path in left if any(path[: len(root)] == root for root in right)}
    assert members(fieldset.without(made(left), made(right))) == left - gone


@given(paths, paths)
def test_what_does_not_change_is_given_back(left: Paths, right: Paths) -> None:
    ours, theirs = made(left), made(right)
    assert (fieldset.difference(ours, theirs) is ours) == (not left & right)
    assert (fieldset.union(ours, theirs) is ours) == (right <= left or (not left and not right))
    assert made(left) == ours and made(right) == theirs


@given(paths)
def test_stored_sets_are_accepted_as_they_are(some: Paths) -> None:
    assert fieldset.accepted(made(some)) == made(some)


@pytest.mark.parametrize(
    "document",
    [
        pytest.param([], id="list"),
        pytest.param({"spec": {}}, id="no-kind"),
        pytest.param({"f:a": 1}, id="no-object"),
        pytest.param({"k:[1]": {}}, id="key-no-object"),
        pytest.param({"v:{": {}}, id="bad-json"),
        pytest.param({"i:x": {}}, id="bad-index"),
    ],
)
def test_bad_documents_are_refused(document: Any) -> None:
    with pytest.raises(fieldset.BadFields):
        fieldset.accepted(document)


def test_paths_are_shown_in_order() -> None:
    fields = {
        "f:spec": {"f:ports": {'k:{"protocol":"TCP","port":80}': {".": {}, "f:name": {}}}, "f:a": {}},
        "f:metadata": {"f:finalizers": {'v:"x/y"': {}}},
    }
    shown = [
        '.metadata.finalizers[="x/y"]',
        ".spec.a",
        '.spec.ports[port=80,protocol="TCP"]',
        '.spec.ports[port=80,protocol="TCP"].name',
    ]
    assert list(fieldset.paths(fields)) == shown
