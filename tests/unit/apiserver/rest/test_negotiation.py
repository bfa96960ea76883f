from __future__ import annotations

import pytest

from apiserver.rest.negotiation import (
    PARTIAL,
    PLAIN,
    PROTOBUF,
    TABLE,
    YAML,
    Accepted,
    negotiate,
    only_protobuf,
    wants_aggregated_discovery,
)
from machinery.errors import NotAcceptable

TABLES = (
    "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json"
)
AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        pytest.param("", PLAIN, id="nothing"),
        pytest.param("application/json", PLAIN, id="json"),
        pytest.param("*/*", PLAIN, id="anything"),
        pytest.param("text/html,*/*", PLAIN, id="html-or-anything"),
        pytest.param("application/yaml", Accepted(YAML, json_too=False), id="yaml"),
        pytest.param("application/yaml;q=0.5,application/json", PLAIN, id="quality"),
        pytest.param(f"{PROTOBUF},application/json", Accepted(PROTOBUF, json_too=True), id="protobuf-or-json"),
        pytest.param(PROTOBUF, Accepted(PROTOBUF, json_too=False), id="protobuf"),
        pytest.param(TABLES, Accepted("application/json", TABLE, "v1"), id="kubectl-get"),
        pytest.param(
            "application/json;as=Gizmo;v=v1;g=meta.k8s.io,application/json", PLAIN, id="unknown-transform-falls-through"
        ),
        pytest.param(
            f"{PROTOBUF};as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1;g=meta.k8s.io",
            Accepted("application/json", TABLE, "v1"),
            id="no-table-in-protobuf",
        ),
    ],
)
def test_negotiate(header: str, expected: Accepted) -> None:
    assert negotiate(header, transforms=(TABLE, PARTIAL)) == expected


@pytest.mark.parametrize(
    ("header", "yaml", "told"),
    [
        pytest.param("text/plain", True, "Available representations", id="text"),
        pytest.param("image/*", True, "Available representations", id="image"),
        pytest.param("application/json;as=Table;v=v9;g=meta.k8s.io", True, "yaml, .*protobuf$", id="unknown-version"),
        pytest.param("application/json;as=Service;v=v1;g=", True, "yaml, .*protobuf$", id="no-kind-of-meta"),
        pytest.param("application/json;g=meta.k8s.io;v=v1", True, "yaml, .*protobuf$", id="no-kind"),
        pytest.param(f"{PROTOBUF};as=Table;v=v1;g=meta.k8s.io", True, "yaml, .*protobuf$", id="table-in-protobuf"),
        pytest.param(YAML, False, "json;stream=watch, .*protobuf;stream=watch$", id="watch-in-yaml"),
    ],
)
def test_what_cannot_be_written_is_refused(header: str, yaml: bool, told: str) -> None:
    with pytest.raises(NotAcceptable, match=told):
        negotiate(header, transforms=(TABLE,), yaml=yaml)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        pytest.param(f"{AGGREGATED},application/json", AGGREGATED, id="v2-first"),
        pytest.param(f"application/json,{AGGREGATED}", "", id="plain-first"),
        pytest.param(AGGREGATED.replace("v=v2", "v=v2beta1") + ",application/json", "", id="old-version"),
        pytest.param("", "", id="nothing"),
    ],
)
def test_aggregated_discovery(header: str, expected: str) -> None:
    assert wants_aggregated_discovery(header) == expected


@pytest.mark.parametrize(
    ("header", "expected"), [(PROTOBUF, True), (f"{PROTOBUF},application/json", False), (f"{PROTOBUF}, */*", False)]
)
def test_only_protobuf(header: str, expected: bool) -> None:
    assert only_protobuf(header) is expected
