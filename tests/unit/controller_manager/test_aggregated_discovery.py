"""What discovery tells of aggregated APIs."""

from __future__ import annotations

from typing import Any

import pytest

from api.resources import Resource
from controller_manager.aggregated import AggregatedResource, Discovered, read_discovery
from machinery.errors import StatusError


def version(name: str, *plurals: str, freshness: str = "Current") -> dict[str, Any]:
    found = [
        {"resource": each, "scope": "Namespaced", "verbs": ["list"], "responseKind": {"kind": each.title()}}
        for each in plurals
    ]
    return {"version": name, "freshness": freshness, "resources": found}


def document(*versions: dict[str, Any], group: str = "a.example") -> dict[str, Any]:
    return {"items": [{"metadata": {"name": group}, "versions": list(versions)}]}


BOTH = frozenset({("a.example", "v1"), ("a.example", "v2")})


def test_each_resource_is_taken_in_its_preferred_version() -> None:
    found = read_discovery(document(version("v2", "new", "both"), version("v1", "both", "old")), BOTH)
    assert [(each.version, each.plural, each.verbs) for each in found.resources] == [
        ("v2", "new", ("list",)),
        ("v2", "both", ("list",)),
        ("v1", "old", ("list",)),
    ]
    assert (found.failed, found.failure) == ((), "")


@pytest.mark.parametrize(
    ("versions", "failed"),
    [
        pytest.param([version("v1", "x"), version("v2", "x", freshness="Stale")], ("a.example/v2",), id="stale"),
        pytest.param([version("v1", "x")], ("a.example/v2",), id="not told of"),
        pytest.param([], ("a.example/v1", "a.example/v2"), id="none"),
    ],
)
def test_what_is_stale_has_failed(versions: list[dict[str, Any]], failed: tuple[str, ...]) -> None:
    found = read_discovery(document(*versions), BOTH)
    assert found.failed == failed
    assert found.failure == (
        f"Discovery failed for some groups, {len(failed)} failing: "
        "unable to retrieve the complete list of server APIs: "
        + ", ".join(f"{each}: stale GroupVersion discovery: {each}" for each in failed)
    )


def test_what_this_server_serves_itself_is_left_out() -> None:
    assert read_discovery(document(version("v1", "x"), group="apps"), frozenset()) == Discovered()


def test_an_aggregated_resource_is_never_one_of_ours() -> None:
    assert AggregatedResource("g", "v1", "things", "Thing") != Resource("g", "v1", "things", "Thing")


@pytest.mark.parametrize("found", [{"items": 3}, {"items": [{"versions": [{}]}]}, {"items": ["x"]}])
def test_another_document_is_refused(found: dict[str, Any]) -> None:
    with pytest.raises(StatusError, match="discovery is not understood"):
        read_discovery(found, BOTH)
