from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apiserver.registry.context import DeleteOptions, ListOptions
from apiserver.rest import query
from apiserver.rest.negotiation import APPLY_PATCH
from machinery.errors import BadRequest, Invalid


def test_list_options() -> None:
    parsed = query.parse(b"labelSelector=a%3Db&limit=5&continue=x&resourceVersion=7&sendInitialEvents=false")
    assert query.list_options(parsed) == ListOptions(
        label_selector="a=b", limit=5, continue_="x", resource_version="7", send_initial_events=False
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"watch=1", True),
        (b"watch=true", True),
        (b"watch=maybe", True),
        (b"watch=", True),
        (b"watch=0", False),
        (b"", False),
    ],
)
def test_watch_flag(text: bytes, expected: bool) -> None:
    assert query.is_watch(query.parse(text)) is expected


@given(st.integers(min_value=-(1 << 63), max_value=(1 << 63) - 1))
def test_every_int64_is_read(value: int) -> None:
    assert query.parse_int(str(value)) == value


@pytest.mark.parametrize("text", ["x", "", "1.5", "१", "0x10", "9223372036854775808", "9" * 5000])
def test_other_numbers_are_refused(text: str) -> None:
    with pytest.raises(BadRequest, match=r"strconv\.ParseInt: parsing"):
        query.parse_int(text)


@pytest.mark.parametrize(
    ("text", "kind", "patch_type", "field"),
    [
        pytest.param(b"dryRun=Some", "CreateOptions", "", "dryRun", id="dry-run"),
        pytest.param(b"fieldValidation=Loud", "UpdateOptions", "", "fieldValidation", id="validation"),
        pytest.param(b"fieldManager=" + b"x" * 129, "CreateOptions", "", "fieldManager", id="long-manager"),
        pytest.param(b"fieldManager=a%0Ab", "CreateOptions", "", "fieldManager", id="unprintable-manager"),
        pytest.param(b"force=true", "PatchOptions", "", "force", id="force-without-apply"),
        pytest.param(b"", "PatchOptions", APPLY_PATCH, "fieldManager", id="apply-without-manager"),
    ],
)
def test_bad_write_options(text: bytes, kind: str, patch_type: str, field: str) -> None:
    with pytest.raises(Invalid) as caught:
        query.write_query(query.parse(text), kind, patch_type=patch_type)
    assert caught.value.details is not None
    assert caught.value.details["kind"] == kind
    assert [cause["field"] for cause in caught.value.causes] == [field]


@pytest.mark.parametrize(
    ("text", "body", "options", "dry_run"),
    [
        pytest.param(b"", None, DeleteOptions(), False, id="nothing"),
        pytest.param(
            b"gracePeriodSeconds=0&propagationPolicy=Orphan&dryRun=All",
            None,
            DeleteOptions(grace_period_seconds=0, propagation_policy="Orphan"),
            True,
            id="query",
        ),
        pytest.param(
            b"gracePeriodSeconds=9",
            {"gracePeriodSeconds": 1, "preconditions": {"uid": "u", "resourceVersion": "5"}},
            DeleteOptions(grace_period_seconds=1, uid="u", resource_version="5"),
            False,
            id="body-wins",
        ),
        pytest.param(
            b"orphanDependents=true", None, DeleteOptions(orphan_dependents=True), False, id="deprecated-orphans"
        ),
    ],
)
def test_delete_options(text: bytes, body: dict[str, Any] | None, options: DeleteOptions, dry_run: bool) -> None:
    assert query.delete_options(query.parse(text), body) == (options, dry_run)


@pytest.mark.parametrize(
    ("body", "error"),
    [
        pytest.param({"kind": "Pod", "apiVersion": "v1"}, BadRequest, id="other-kind"),
        pytest.param({"gracePeriodSeconds": "1"}, BadRequest, id="text-for-number"),
        pytest.param({"gracePeriodSeconds": True}, BadRequest, id="bool-for-number"),
        pytest.param({"preconditions": []}, BadRequest, id="list-for-object"),
        pytest.param({"propagationPolicy": "Sideways"}, Invalid, id="unknown-policy"),
        pytest.param({"propagationPolicy": "Orphan", "orphanDependents": True}, Invalid, id="both-ways"),
        pytest.param({"dryRun": ["Some"]}, Invalid, id="dry-run"),
    ],
)
def test_bad_delete_options(body: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        query.delete_options({}, body)
