"""The byte form: what is stored, what readers see."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apiserver.storage.form import BadObject, ObjectForm
from apiserver.storage.keys import parse_suffix, resource_prefix, suffix
from machinery.meta import ObjectKey

FORM = ObjectForm("ConfigMap", "v1")
TEXT = st.text(max_size=20)
OBJECTS = st.fixed_dictionaries(
    {
        "metadata": st.fixed_dictionaries(
            {"name": st.text(min_size=1, max_size=10)}, optional={"labels": st.dictionaries(TEXT, TEXT, max_size=3)}
        )
    },
    optional={"data": st.dictionaries(TEXT, TEXT, max_size=3), "immutable": st.booleans()},
)


def load(raw: bytes) -> dict[str, Any]:
    obj: dict[str, Any] = msgspec.json.decode(raw)
    return obj


@given(OBJECTS, st.integers(1, 2**62), st.integers(1, 2**62))
def test_splices_keep_the_object(obj: dict[str, Any], first: int, second: int) -> None:
    stored = FORM.encode(obj)
    whole = {"kind": "ConfigMap", "apiVersion": "v1", **obj}
    assert load(stored) == whole
    raw = FORM.with_revision(stored, first)
    assert load(raw) == {**whole, "metadata": {**obj["metadata"], "resourceVersion": str(first)}}
    assert FORM.without_revision(raw) == stored
    assert FORM.restamp(raw, second) == FORM.with_revision(stored, second)
    assert load(FORM.bare(raw)) == {key: value for key, value in load(raw).items() if key not in ("kind", "apiVersion")}


def test_the_version_of_a_client_is_not_stored() -> None:
    assert b"resourceVersion" not in FORM.encode({"metadata": {"resourceVersion": "5", "name": "a"}})


def test_values_of_other_writers_are_adopted() -> None:
    foreign = (
        b'{ "metadata": {"name": "a", "resourceVersion": "3"}, "apiVersion": "v1", "data": {}, "kind": "ConfigMap"}'
    )
    assert FORM.adopt(foreign) == FORM.encode({"metadata": {"name": "a"}, "data": {}})
    own = FORM.encode({"metadata": {"name": "a"}})
    assert FORM.adopt(own) is own


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"k8s\x00\n\x0f", id="protobuf"),
        pytest.param(b"[]", id="list"),
        pytest.param(b'{"metadata":5}', id="metadata"),
        pytest.param(b"", id="empty"),
    ],
)
def test_what_is_no_object_is_told(raw: bytes) -> None:
    with pytest.raises(BadObject):
        FORM.adopt(raw)


def test_bookmarks() -> None:
    assert load(FORM.bookmark(7)) == {"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"resourceVersion": "7"}}
    marked = load(FORM.bookmark(7, initial_events_end=True))
    assert marked["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}


@pytest.mark.parametrize(
    ("group", "plural", "prefix"),
    [
        pytest.param("", "pods", b"/registry/pods/", id="pods"),
        pytest.param("", "services", b"/registry/services/specs/", id="services"),
        pytest.param("", "endpoints", b"/registry/services/endpoints/", id="endpoints"),
        pytest.param("", "nodes", b"/registry/minions/", id="nodes"),
        pytest.param("", "replicationcontrollers", b"/registry/controllers/", id="rc"),
        pytest.param("apps", "deployments", b"/registry/deployments/", id="deployments"),
        pytest.param("networking.k8s.io", "ingresses", b"/registry/ingress/", id="ingresses"),
        pytest.param("coordination.k8s.io", "leases", b"/registry/leases/", id="leases"),
        pytest.param("example.com", "widgets", b"/registry/example.com/widgets/", id="custom"),
        pytest.param(
            "apiextensions.k8s.io",
            "customresourcedefinitions",
            b"/registry/apiextensions.k8s.io/customresourcedefinitions/",
            id="crds",
        ),
    ],
)
def test_keys_lie_where_upstream_has_them(group: str, plural: str, prefix: bytes) -> None:
    assert resource_prefix(group, plural) == prefix


@pytest.mark.parametrize("key", [ObjectKey("ns", "a"), ObjectKey("", "a")], ids=str)
def test_suffixes_round_trip(key: ObjectKey) -> None:
    assert parse_suffix(suffix(*key)) == key
