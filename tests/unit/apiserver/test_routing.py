from __future__ import annotations

from typing import Any

import pytest

from api.resources import Resource, lookup
from apiserver.bootstrap import first_service_ip
from apiserver.routing import check_kind
from machinery.errors import BadRequest


def resource(group: str, version: str, plural: str) -> Resource:
    found = lookup(group, version, plural)
    assert found is not None
    return found


CONFIG_MAPS = resource("", "v1", "configmaps")
DEPLOYMENTS = resource("apps", "v1", "deployments")
HPA = resource("autoscaling", "v2", "horizontalpodautoscalers")


def test_a_missing_kind_is_filled_in() -> None:
    body: dict[str, Any] = {}
    check_kind(body, DEPLOYMENTS)
    assert body == {"apiVersion": "apps/v1", "kind": "Deployment"}
    body = {"kind": "Scale", "apiVersion": "autoscaling/v1"}
    check_kind(body, DEPLOYMENTS, "scale")
    assert body["kind"] == "Scale"


def test_evictions_of_older_clients_are_accepted() -> None:
    body: dict[str, Any] = {"kind": "Eviction", "apiVersion": "policy/v1beta1"}
    check_kind(body, resource("", "v1", "pods"), "eviction")
    assert body["apiVersion"] == "policy/v1"


@pytest.mark.parametrize(
    ("api_version", "kind", "where", "message"),
    [
        pytest.param(
            "v1",
            "Pod",
            CONFIG_MAPS,
            'Pod in version "v1" cannot be handled as a ConfigMap: converting (v1.Pod) to (core.ConfigMap): '
            "unknown conversion",
            id="other-kind",
        ),
        pytest.param(
            "v2",
            "ConfigMap",
            CONFIG_MAPS,
            'ConfigMap in version "v2" cannot be handled as a ConfigMap: no kind "ConfigMap" is registered for version '
            '"v2" in scheme "pkg/api/legacyscheme/scheme.go:30"',
            id="unknown-version",
        ),
        pytest.param(
            "autoscaling/v1",
            "HorizontalPodAutoscaler",
            HPA,
            "the API version in the data (autoscaling/v1) does not match the expected API version (autoscaling/v2)",
            id="other-version",
        ),
    ],
)
def test_other_kinds_are_refused(api_version: str, kind: str, where: Resource, message: str) -> None:
    with pytest.raises(BadRequest) as caught:
        check_kind({"apiVersion": api_version, "kind": kind}, where)
    assert caught.value.message == message


@pytest.mark.parametrize(("network", "address"), [("10.96.0.0/16", "10.96.0.1"), ("fd00::/112", "fd00::1")])
def test_first_service_ip(network: str, address: str) -> None:
    assert first_service_ip(network) == address
