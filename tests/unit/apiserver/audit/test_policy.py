"""Which rule counts, and what a wrong policy says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from apiserver.audit.policy import PolicyError, load, parse
from apiserver.auth.attributes import Attributes
from apiserver.auth.user import UserInfo

ALICE = UserInfo("alice", ("dev", "system:authenticated"))


def policy(*rules: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": list(rules), **more}


def resource(
    verb: str, plural: str, namespace: str = "", name: str = "", subresource: str = "", group: str = ""
) -> Attributes:
    return Attributes("/x", verb, True, group, "v1", plural, namespace, name, subresource)


GET_POD = resource("get", "pods", "ns", "a")
POD_LOG = resource("get", "pods", "ns", "a", "log")


@pytest.mark.parametrize(
    ("rule", "asked", "matches"),
    [
        pytest.param({}, GET_POD, True, id="everything"),
        pytest.param({"users": ["bob"]}, GET_POD, False, id="another-user"),
        pytest.param({"userGroups": ["dev"]}, GET_POD, True, id="group"),
        pytest.param({"verbs": ["list"]}, GET_POD, False, id="another-verb"),
        pytest.param({"namespaces": ["ns"]}, GET_POD, True, id="namespace"),
        pytest.param({"namespaces": [""]}, resource("list", "nodes"), True, id="no-namespace"),
        pytest.param({"namespaces": ["ns"]}, Attributes("/healthz", "get"), False, id="namespaces-are-of-resources"),
        pytest.param({"resources": [{"resources": ["pods"]}]}, GET_POD, True, id="resource"),
        pytest.param({"resources": [{"resources": ["pods"]}]}, POD_LOG, False, id="subresources-are-others"),
        pytest.param({"resources": [{"resources": ["pods/log"]}]}, POD_LOG, True, id="subresource"),
        pytest.param({"resources": [{"resources": ["pods/*"]}]}, POD_LOG, True, id="all-subresources"),
        pytest.param({"resources": [{"resources": ["*/log"]}]}, POD_LOG, True, id="a-subresource-of-all"),
        pytest.param({"resources": [{"resources": ["*"]}]}, POD_LOG, True, id="star"),
        pytest.param({"resources": [{}]}, POD_LOG, True, id="a-whole-group"),
        pytest.param({"resources": [{"group": "apps"}]}, GET_POD, False, id="another-group"),
        pytest.param({"resources": [{"resources": ["pods"], "resourceNames": ["b"]}]}, GET_POD, False, id="name"),
        pytest.param({"nonResourceURLs": ["/healthz*"]}, Attributes("/healthz/etcd", "get"), True, id="url"),
        pytest.param({"nonResourceURLs": ["/version"]}, Attributes("/healthz", "get"), False, id="another-url"),
        pytest.param({"nonResourceURLs": ["*"]}, GET_POD, False, id="urls-are-no-resources"),
    ],
)
def test_rules_match(rule: dict[str, Any], asked: Attributes, matches: bool) -> None:
    found = parse(policy({"level": "Request", **rule})).verdict(ALICE, asked)
    assert found.level == ("Request" if matches else "None")


def test_the_first_rule_counts_and_stages_add_up() -> None:
    made = parse(
        policy(
            {"level": "None", "verbs": ["list"]},
            {"level": "Metadata", "omitStages": ["Panic"], "omitManagedFields": False},
            omitStages=["RequestReceived"],
            omitManagedFields=True,
        )
    )
    assert made.verdict(ALICE, resource("list", "pods")).level == "None"
    assert tuple(made.verdict(ALICE, GET_POD)) == ("Metadata", {"RequestReceived", "Panic"}, False)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        pytest.param({"kind": "Policy", "apiVersion": "audit.k8s.io/v1beta1"}, "audit.k8s.io/v1beta1", id="version"),
        pytest.param([], "object", id="no-object"),
        pytest.param(policy(), "rules: Required value", id="no-rules"),
        pytest.param(policy({}), r"rules\[0\].level: Required value", id="no-level"),
        pytest.param(policy({"level": "All"}), r'rules\[0\].level: Unsupported value: "All"', id="level"),
        pytest.param(policy({"level": "None", "verb": ["get"]}), "unknown field `verb`", id="unknown-field"),
        pytest.param(
            policy({"level": "None", "omitStages": ["X"]}), r"rules\[0\].omitStages.*allowed stages", id="stage"
        ),
        pytest.param(
            policy({"level": "None", "nonResourceURLs": ["/a"], "namespaces": ["x"]}), "cannot apply to both", id="both"
        ),
        pytest.param(policy({"level": "None", "nonResourceURLs": ["a"]}), "must begin with a '/'", id="url"),
        pytest.param(policy({"level": "None", "nonResourceURLs": ["/a*b"]}), "must be the final character", id="star"),
        pytest.param(
            policy({"level": "None", "resources": [{"resourceNames": ["x"]}]}),
            "requires at least one resource",
            id="names",
        ),
        pytest.param(policy({"level": "None", "resources": [{"group": "Apps/v1"}]}), "DNS-1123", id="group"),
    ],
)
def test_wrong_policies_say_where(value: Any, message: str) -> None:
    with pytest.raises(PolicyError, match=message):
        parse(value)


def test_files_that_are_none(tmp_path: Path) -> None:
    for text in ("a: [", "\t", ""):
        path = tmp_path / "policy.yaml"
        path.write_text(text)
        with pytest.raises(PolicyError, match=r"policy\.yaml"):
            load(path)
    with pytest.raises(PolicyError, match="No such file"):
        load(tmp_path / "none")


def test_the_policy_of_up_records_writes_and_no_heartbeats() -> None:
    from cli.processes import AUDIT_POLICY

    made = load(AUDIT_POLICY)
    wanted = {
        "Metadata": [resource("create", "pods", "ns"), resource("get", "secrets", "ns"), resource("delete", "nodes")],
        "None": [
            GET_POD,
            resource("update", "leases", "ns", group="coordination.k8s.io"),
            resource("create", "events"),
        ],
    }
    for level, requests in wanted.items():
        assert {made.verdict(ALICE, asked).level for asked in requests} == {level}
