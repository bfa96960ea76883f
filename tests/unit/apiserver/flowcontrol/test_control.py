"""Which level a request belongs to, and what levels lend each other."""

from __future__ import annotations

from typing import Any

import pytest

from apiserver.auth.attributes import Attributes
from apiserver.auth.user import UserInfo
from apiserver.flowcontrol import defaults
from apiserver.flowcontrol.control import FlowControl, level_specs, seats_of
from apiserver.flowcontrol.feed import dangling, plan_default

AUTHENTICATED = "system:authenticated"
ACCOUNTS = "system:serviceaccounts"
ADMIN = UserInfo("admin", ("system:masters", AUTHENTICATED))
ALICE = UserInfo("alice", (AUTHENTICATED,))
NOBODY = UserInfo("system:anonymous", ("system:unauthenticated",))
NODE = UserInfo("system:node:a", ("system:nodes", AUTHENTICATED))
SYSTEM_ACCOUNT = UserInfo("system:serviceaccount:kube-system:dns", (ACCOUNTS, AUTHENTICATED))
ACCOUNT = UserInfo("system:serviceaccount:default:app", (ACCOUNTS, AUTHENTICATED))
MANAGER = UserInfo("system:kube-controller-manager", (AUTHENTICATED,))


def asked(verb: str, resource: str, namespace: str = "", group: str = "", subresource: str = "") -> Attributes:
    return Attributes("/x", verb, True, group, "v1", resource, namespace, "n", subresource)


def control(total: int = 600) -> FlowControl:
    made = FlowControl(total)
    made.configure(defaults.levels(), defaults.schemas())
    return made


@pytest.mark.parametrize(
    ("user", "request_", "schema", "level"),
    [
        pytest.param(ADMIN, asked("get", "pods", "a"), "exempt", "exempt", id="masters"),
        pytest.param(NOBODY, Attributes("/readyz", "get"), "probes", "exempt", id="probes"),
        pytest.param(ALICE, asked("get", "pods", "a"), "global-default", "global-default", id="a-user"),
        pytest.param(NOBODY, Attributes("/version", "get"), "global-default", "global-default", id="anonymous"),
        pytest.param(NODE, asked("get", "pods", "a"), "system-nodes", "system", id="node"),
        pytest.param(NODE, asked("patch", "nodes", subresource="status"), "system-node-high", "node-high", id="status"),
        pytest.param(
            NODE,
            asked("update", "leases", "kube-node-lease", "coordination.k8s.io"),
            "system-node-high",
            "node-high",
            id="heartbeat",
        ),
        pytest.param(
            MANAGER,
            asked("update", "leases", "kube-system", "coordination.k8s.io"),
            "system-leader-election",
            "leader-election",
            id="election",
        ),
        pytest.param(MANAGER, asked("list", "pods"), "kube-controller-manager", "workload-high", id="manager"),
        pytest.param(
            MANAGER, asked("update", "endpoints", "a"), "endpoint-controller", "workload-high", id="endpoints"
        ),
        pytest.param(
            SYSTEM_ACCOUNT, asked("list", "pods"), "kube-system-service-accounts", "workload-high", id="system-account"
        ),
        pytest.param(ACCOUNT, asked("list", "pods"), "service-accounts", "workload-low", id="account"),
        pytest.param(
            ACCOUNT,
            asked("get", "leases", "a", "coordination.k8s.io"),
            "service-accounts",
            "workload-low",
            id="accounts-election",
        ),
        pytest.param(
            SYSTEM_ACCOUNT,
            asked("update", "configmaps", "a"),
            "workload-leader-election",
            "leader-election",
            id="system-accounts-election",
        ),
        pytest.param(UserInfo("x"), asked("list", "pods"), "", "", id="in-no-group"),
    ],
)
def test_requests_find_their_level(user: UserInfo, request_: Attributes, schema: str, level: str) -> None:
    made = control()
    for _ in range(2):  # the second answer comes from the cache
        place = made.place(user, request_)
        if not schema:
            assert place is None
        else:
            assert place is not None
            assert (place.schema.name, place.level.spec.name) == (schema, level)


def test_flows_are_told_apart() -> None:
    made = control()
    pods = asked("list", "pods", "ns")
    by_user, by_namespace = made.place(ALICE, pods), made.place(MANAGER, pods)
    assert by_user is not None and by_namespace is not None
    assert (by_user.flow, by_namespace.flow) == ("alice", "ns")


def test_shares_become_seats() -> None:
    specs = {spec.name: spec for spec in level_specs(defaults.levels(), 245)}
    assert specs["exempt"].exempt
    assert {name: spec.seats for name, spec in specs.items()} == {
        "exempt": 0,
        "catch-all": 5,
        "system": 30,
        "node-high": 40,
        "leader-election": 10,
        "workload-high": 40,
        "workload-low": 100,
        "global-default": 20,
    }
    assert specs["workload-low"].lendable == 90
    assert specs["catch-all"].queues == 0 and specs["system"].queues == 64


def test_idle_seats_are_lent_and_not_more() -> None:
    made = control(245)
    place = made.place(ALICE, asked("get", "pods", "a"))
    assert place is not None
    taken = 0
    while place.level.take(1):
        taken += 1
    lendable = sum(level.spec.lendable for level in made.levels if level is not place.level)
    assert taken == place.level.spec.seats + lendable
    low = made.place(ACCOUNT, asked("list", "pods"))
    assert low is not None and low.level.take(1)  # a lender still has what is its own


@pytest.mark.parametrize(("objects", "seats"), [(0, 1), (100, 1), (101, 2), (950, 10), (100_000, 10)])
def test_long_lists_weigh_more(objects: int, seats: int) -> None:
    assert seats_of(lambda: objects) == seats


def test_schemas_without_a_level_are_left_out() -> None:
    made = FlowControl()
    levels = [each for each in defaults.levels() if each["metadata"]["name"] != "global-default"]
    made.configure(levels, defaults.schemas())
    place = made.place(ALICE, asked("get", "pods", "a"))
    assert place is not None and place.schema.name == "catch-all"


def test_dangling() -> None:
    schema: dict[str, Any] = {"metadata": {"name": "s"}, "spec": {"priorityLevelConfiguration": {"name": "l"}}}
    first = dangling(schema, {}, "t1")
    assert first is not None
    assert (first["status"], first["reason"], first["lastTransitionTime"]) == ("True", "NotFound", "t1")
    assert first["message"].endswith('named "l" but there is no such object')
    schema["status"] = {"conditions": [first]}
    assert dangling(schema, {}, "t2") is None
    then = dangling(schema, {"l": {}}, "t2")
    assert then is not None and (then["status"], then["reason"], then["lastTransitionTime"]) == ("False", "Found", "t2")


def test_defaults_are_kept_unless_a_user_says_otherwise() -> None:
    wanted = next(each for each in defaults.levels() if each["metadata"]["name"] == "system")
    assert plan_default(wanted, None) == wanted
    stored = {**wanted, "metadata": {**wanted["metadata"], "uid": "u"}}
    assert plan_default(wanted, stored) is None
    changed = {**stored, "spec": {"type": "Limited", "limited": {"nominalConcurrencyShares": 1}}}
    back = plan_default(wanted, changed)
    assert back is not None and back["spec"] == wanted["spec"] and back["metadata"]["uid"] == "u"
    kept = {**changed, "metadata": {**wanted["metadata"], "annotations": {defaults.AUTOUPDATE: "false"}}}
    assert plan_default(wanted, kept) is None
    exempt = next(each for each in defaults.levels() if each["metadata"]["name"] == "exempt")
    own = {**exempt, "spec": {"type": "Exempt", "exempt": {"nominalConcurrencyShares": 9, "lendablePercent": 50}}}
    assert plan_default(exempt, own) is None
    assert plan_default(exempt, {**own, "spec": {"type": "Exempt"}}) is not None
    mandatory = next(each for each in defaults.levels() if each["metadata"]["name"] == "catch-all")
    assert plan_default(mandatory, {**kept, "spec": {}}) is not None
