"""Discovery as clients use it, legacy and aggregated, by the names of upstream's conformance tests."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.harness.apiserver import DEADLINE, RestClient, RunningApiServer

V2 = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
V2BETA1 = "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList"
# What client-go sends: aggregated if the server has it, else plain.
CLIENT_GO = f"{V2},{V2BETA1},application/json"
DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
AGGREGATED = "[sig-api-machinery] AggregatedDiscovery should support {} [Conformance]"
LEGACY = "[sig-api-machinery] Discovery should {} [Conformance]"


def widgets(*versions: str) -> dict[str, Any]:
    schema = {"openAPIV3Schema": {"type": "object"}}
    listed = [{"name": each, "served": True, "storage": each == versions[0], "schema": schema} for each in versions]
    names = {
        "plural": "widgets",
        "kind": "Widget",
        "singular": "widget",
        "listKind": "WidgetList",
        "shortNames": ["wd"],
    }
    spec = {"group": "discovery.example.com", "names": names, "scope": "Namespaced", "versions": listed}
    return {"metadata": {"name": "widgets.discovery.example.com"}, "spec": spec}


async def aggregated(rest: RestClient, root: str) -> dict[str, dict[str, Any]]:
    """Group name → version name → entry."""
    answer = await rest.get(root, accept=CLIENT_GO)
    assert answer.header("content-type") == V2
    items = answer.json["items"]
    return {item["metadata"].get("name", ""): {each["version"]: each for each in item["versions"]} for item in items}


async def with_widgets(rest: RestClient, wanted: bool) -> dict[str, dict[str, Any]]:
    async with asyncio.timeout(DEADLINE):
        while True:
            found = await aggregated(rest, "/apis")
            if ("discovery.example.com" in found) == wanted:
                return found
            await asyncio.sleep(0.01)


@pytest.mark.conformance(AGGREGATED.format("aggregated discovery interface"))
async def test_aggregated_discovery_knows_the_built_in_groups(apiserver: RunningApiServer) -> None:
    rest = apiserver.rest()
    core = (await aggregated(rest, "/api"))[""]["v1"]
    kinds = {each["resource"]: each["responseKind"]["kind"] for each in core["resources"]}
    assert {"pods": "Pod", "namespaces": "Namespace", "services": "Service"}.items() <= kinds.items()
    groups = await aggregated(rest, "/apis")
    apps = groups["apps"]["v1"]
    deployments = next(each for each in apps["resources"] if each["resource"] == "deployments")
    assert {each["subresource"] for each in deployments["subresources"]} == {"status", "scale"}
    assert {"admissionregistration.k8s.io", "apiextensions.k8s.io", "apiregistration.k8s.io", "batch"} <= groups.keys()
    assert all(version["freshness"] == "Current" for group in groups.values() for version in group.values())


@pytest.mark.conformance(AGGREGATED.format("raw aggregated discovery endpoint Accept headers"))
@pytest.mark.parametrize("root", ["/api", "/apis"])
async def test_accept_headers(apiserver: RunningApiServer, root: str) -> None:
    rest = apiserver.rest()
    told = await rest.get(root, accept=V2)
    assert (told.status, told.header("content-type")) == (200, V2)
    assert (told.json["kind"], told.json["apiVersion"]) == ("APIGroupDiscoveryList", "apidiscovery.k8s.io/v2")
    plain = await rest.get(root, accept="application/json")
    assert plain.header("content-type") == "application/json"
    assert plain.json["kind"] == ("APIVersions" if root == "/api" else "APIGroupList")
    etag = told.header("etag")
    assert (await rest.get(root, accept=V2, if_none_match=etag)).status == 304


@pytest.mark.conformance(AGGREGATED.format("raw aggregated discovery request for CRDs"))
@pytest.mark.conformance(AGGREGATED.format("aggregated discovery interface for CRDs"))
async def test_custom_resources_come_and_go(apiserver: RunningApiServer) -> None:
    rest = apiserver.rest()
    assert (await rest.post(DEFINITIONS, widgets("v1", "v2beta1"))).status == 201
    versions = (await with_widgets(rest, True))["discovery.example.com"]
    assert list(versions) == ["v1", "v2beta1"]
    entry = versions["v1"]["resources"][0]
    assert (entry["resource"], entry["scope"], entry["shortNames"]) == ("widgets", "Namespaced", ["wd"])
    group = (await rest.get("/apis/discovery.example.com")).json
    assert group["preferredVersion"]["version"] == "v1"
    assert (await rest.request("DELETE", f"{DEFINITIONS}/widgets.discovery.example.com")).status == 200
    await with_widgets(rest, False)


@pytest.mark.conformance(LEGACY.format("validate PreferredVersion for each APIGroup"))
async def test_preferred_versions(apiserver: RunningApiServer) -> None:
    rest = apiserver.rest()
    groups = (await rest.get("/apis")).json["groups"]
    assert len(groups) > 15
    for listed in groups:
        group = (await rest.get(f"/apis/{listed['name']}")).json
        assert group["preferredVersion"] == listed["preferredVersion"]
        assert group["preferredVersion"] in group["versions"]
        assert group["preferredVersion"]["groupVersion"].startswith(f"{listed['name']}/")


@pytest.mark.conformance(LEGACY.format("locate the groupVersion and a resource within each APIGroup"))
async def test_resources_are_located(apiserver: RunningApiServer) -> None:
    rest = apiserver.rest()
    wanted = {
        "apiregistration.k8s.io": "apiservices",
        "apps": "deployments",
        "events.k8s.io": "events",
        "authentication.k8s.io": "tokenreviews",
        "authorization.k8s.io": "selfsubjectaccessreviews",
        "autoscaling": "horizontalpodautoscalers",
        "batch": "jobs",
        "certificates.k8s.io": "certificatesigningrequests",
        "networking.k8s.io": "ingresses",
        "policy": "poddisruptionbudgets",
        "rbac.authorization.k8s.io": "clusterrolebindings",
        "storage.k8s.io": "storageclasses",
        "admissionregistration.k8s.io": "mutatingwebhookconfigurations",
        "apiextensions.k8s.io": "customresourcedefinitions",
        "scheduling.k8s.io": "priorityclasses",
        "coordination.k8s.io": "leases",
        "node.k8s.io": "runtimeclasses",
        "discovery.k8s.io": "endpointslices",
        "flowcontrol.apiserver.k8s.io": "flowschemas",
    }
    groups = {group["name"]: group for group in (await rest.get("/apis")).json["groups"]}
    for name, plural in wanted.items():
        found = (await rest.get(f"/apis/{groups[name]['preferredVersion']['groupVersion']}")).json
        assert found["groupVersion"] == groups[name]["preferredVersion"]["groupVersion"]
        assert plural in [each["name"] for each in found["resources"]]


EXTENSIONS = {
    "apiextensions.k8s.io": ("customresourcedefinitions",),
    "admissionregistration.k8s.io": ("mutatingwebhookconfigurations", "validatingwebhookconfigurations"),
}


@pytest.mark.conformance(
    "[sig-api-machinery] CustomResourceDefinition resources [Privileged:ClusterAdmin] should include custom resource "
    "definition resources in discovery documents [Conformance]"
)
@pytest.mark.conformance(
    "[sig-api-machinery] AdmissionWebhook [Privileged:ClusterAdmin] should include webhook resources in discovery "
    "documents [Conformance]"
)
@pytest.mark.parametrize("group", EXTENSIONS)
async def test_what_extends_the_api_is_told(apiserver: RunningApiServer, group: str) -> None:
    rest = apiserver.rest()
    version = {"groupVersion": f"{group}/v1", "version": "v1"}
    listed = next(each for each in (await rest.get("/apis")).json["groups"] if each["name"] == group)
    assert version in listed["versions"]
    assert version in (await rest.get(f"/apis/{group}")).json["versions"]
    names = {each["name"] for each in (await rest.get(f"/apis/{group}/v1")).json["resources"]}
    assert set(EXTENSIONS[group]) <= names


async def test_stored_versions_are_told_by_their_hash(apiserver: RunningApiServer) -> None:
    """Known values of upstream's; what is not stored has none, and versions of one resource have the same."""
    rest = apiserver.rest()

    async def hashes(path: str) -> dict[str, str]:
        listed = (await rest.get(path)).json["resources"]
        return {each["name"]: each["storageVersionHash"] for each in listed if "storageVersionHash" in each}

    core = await hashes("/api/v1")
    assert core["pods"] == "xPOwRZ+Yhw8="
    assert core["configmaps"] == "qFsyl6wFWjQ="
    assert not core.keys() & {"bindings", "componentstatuses", "pods/status", "pods/exec"}
    assert (await hashes("/apis/events.k8s.io/v1"))["events"] == core["events"]
    v1, v2 = await hashes("/apis/autoscaling/v1"), await hashes("/apis/autoscaling/v2")
    assert v1 == v2 == {"horizontalpodautoscalers": "qwQve8ut294="}

    await rest.post(DEFINITIONS, widgets("v1alpha1", "v1"))
    try:
        await with_widgets(rest, True)
        first, second = [await hashes(f"/apis/discovery.example.com/{each}") for each in ("v1alpha1", "v1")]
        assert first == second
        assert first["widgets"]
    finally:
        await rest.request("DELETE", f"{DEFINITIONS}/widgets.discovery.example.com")
        await with_widgets(rest, False)
