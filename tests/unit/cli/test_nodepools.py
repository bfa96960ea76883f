"""What the account of the node pool autoscaler may do: no more than its work needs."""

from __future__ import annotations

from typing import Any

from cli.nodepools import objects

WRITE = {"create", "update", "patch", "delete"}


def granted(resource: str) -> list[dict[str, Any]]:
    """Rules about a resource in the roles of the process, without those for whoever only looks."""
    roles = [each for _, each in objects() if each["kind"].endswith("Role")]
    own = [each for each in roles if each["metadata"]["name"] != "karpenter-viewer"]
    return [rule for role in own for rule in role["rules"] if resource in rule["resources"]]


def test_pools_are_the_users() -> None:
    verbs = {verb for rule in granted("nodepools") for verb in rule["verbs"]}
    assert "patch" in verbs and not verbs & {"create", "delete"}


def test_no_lease_but_its_own() -> None:
    """Those of other components, and of kubelets, would let it stop these."""
    rules = granted("leases")
    assert {verb for each in rules for verb in each["verbs"]} >= {"get", "create", "update"}
    assert all(set(each["verbs"]) == {"create"} or each.get("resourceNames") for each in rules)


def test_what_only_looks_changes_nothing() -> None:
    (viewer,) = [each for _, each in objects() if each["metadata"]["name"] == "karpenter-viewer"]
    assert not any(WRITE & set(rule["verbs"]) for rule in viewer["rules"])
