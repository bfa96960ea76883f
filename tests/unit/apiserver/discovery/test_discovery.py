from __future__ import annotations

import json

from api.resources import RESOURCES
from apiserver import discovery
from apiserver.discovery import Discovery

BUILT_IN = Discovery(RESOURCES)


def test_every_resource_is_told_both_ways() -> None:
    legacy = {
        (group, version, entry["name"])
        for group, version in {(resource.group, resource.version) for resource in RESOURCES}
        for entry in (BUILT_IN.resource_list(group, version) or {})["resources"]
        if "/" not in entry["name"]
    }
    aggregated = {
        (item["metadata"].get("name", ""), version["version"], entry["resource"])
        for root in ("api", "apis")
        for item in json.loads(BUILT_IN.aggregated(root))["items"]
        for version in item["versions"]
        for entry in version["resources"]
    }
    assert legacy == aggregated == {resource.key() for resource in RESOURCES}


def test_the_preferred_version_comes_first() -> None:
    group = BUILT_IN.group("autoscaling")
    assert group is not None
    assert group["preferredVersion"] == {"groupVersion": "autoscaling/v2", "version": "v2"}
    assert [each["version"] for each in group["versions"]] == ["v2", "v1"]


def test_what_does_not_exist() -> None:
    assert BUILT_IN.group("nope.io") is None
    assert BUILT_IN.group("") is None
    assert BUILT_IN.resource_list("apps", "v9") is None


def test_version_is_what_clients_parse() -> None:
    told = discovery.version()
    assert told["gitVersion"].startswith(f"v{int(told['major'])}.{int(told['minor'])}.")
