"""Rules of flow control, one row each."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from apiserver.flowcontrol.defaults import levels, schemas
from apiserver.registry.validation.flowcontrol import validate_flow_schema, validate_priority_level, validate_status

Obj = dict[str, Any]
USER: Obj = {"kind": "User", "user": {"name": "u"}}
PODS: Obj = {"verbs": ["get"], "apiGroups": [""], "resources": ["pods"], "namespaces": ["*"]}
PATHS: Obj = {"verbs": ["*"], "nonResourceURLs": ["/healthz"]}


def schema(*rules: Obj, precedence: int = 500, name: str = "s") -> Obj:
    spec = {"matchingPrecedence": precedence, "priorityLevelConfiguration": {"name": "l"}, "rules": list(rules)}
    return {"metadata": {"name": name}, "spec": spec}


def of(subject: Obj) -> Obj:
    return schema({"subjects": [subject], "resourceRules": [PODS]})


def about(**changes: Any) -> Obj:
    return schema({"subjects": [USER], "resourceRules": [{**PODS, **changes}]})


def path(*urls: str) -> Obj:
    return schema({"subjects": [USER], "nonResourceRules": [{**PATHS, "nonResourceURLs": list(urls)}]})


def defaults_of(name: str, among: Iterable[Obj]) -> Obj:
    return next(each for each in among if each["metadata"]["name"] == name)


RULE = "spec.rules[0].resourceRules[0]"
SUBJECT = "spec.rules[0].subjects[0]"
URL = "spec.rules[0].nonResourceRules[0].nonResourceURLs"


@pytest.mark.parametrize(
    ("obj", "expected"),
    [
        (schema({"subjects": [USER], "resourceRules": [PODS], "nonResourceRules": [PATHS]}), []),
        (defaults_of("exempt", schemas()), []),
        (defaults_of("catch-all", schemas()), []),
        (schema(precedence=1, name="exempt"), ["spec: Invalid value: {"]),
        (schema(precedence=1), ["spec.matchingPrecedence: Invalid value: 1: only the schema named 'exempt' may have"]),
        (schema(precedence=-1), ["spec.matchingPrecedence: Invalid value: -1: must be a positive value"]),
        (schema(precedence=10001), ["spec.matchingPrecedence: Invalid value: 10001: must not be greater than 10000"]),
        (
            schema({}),
            [
                "spec.rules[0].subjects: Required value: subjects must contain at least one value",
                "spec.rules[0]: Required value: at least one of resourceRules and nonResourceRules has to be non-empty",
            ],
        ),
        (
            of({"kind": "X"}),
            [f'{SUBJECT}.kind: Unsupported value: "X": supported values: "Group", "ServiceAccount", "Us'],
        ),
        (of({"kind": "User"}), [f"{SUBJECT}.user: Required value: user is required when subject kind is 'User'"]),
        (of({"kind": "Group", "group": {}}), [f"{SUBJECT}.group.name: Required value"]),
        (
            of({**USER, "group": {"name": "g"}}),
            [f"{SUBJECT}.group: Forbidden: group is forbidden when subject kind is not 'Group'"],
        ),
        (
            of({"kind": "ServiceAccount", "serviceAccount": {"name": "A"}}),
            [
                f'{SUBJECT}.serviceAccount.name: Invalid value: "A": ',
                f"{SUBJECT}.serviceAccount.namespace: Required value: must specify namespace for service account",
            ],
        ),
        (about(verbs=[]), [f"{RULE}.verbs: Required value: verbs must contain at least one value"]),
        (
            about(verbs=["*", "get"]),
            [f'{RULE}.verbs: Invalid value: ["*","get"]: if \'*\' is present, must not specify o'],
        ),
        (about(verbs=["fly"]), [f'{RULE}.verbs: Unsupported value: ["fly"]: supported values: "create", "delete", ']),
        (about(apiGroups=["*", "a"]), [f"{RULE}.apiGroups: Invalid value: "]),
        (about(resources=[]), [f"{RULE}.resources: Required value: resource rules must supply at least one resource"]),
        (
            about(namespaces=None),
            [f"{RULE}.namespaces: Required value: resource rules that are not cluster scoped must supply at least"],
        ),
        (about(namespaces=None, clusterScope=True), []),
        (about(verbs=["proxy"]), []),
        (
            {"metadata": {"name": "s"}, "spec": {**about()["spec"], "distinguisherMethod": {}}},
            ['spec.distinguisherMethod.type: Unsupported value: "": supported values: "ByNamespace", "ByUser"'],
        ),
        (
            about(namespaces=["A"]),
            [f"{RULE}.namespaces[0]: Invalid value: \"A\": each member of this list must be '*' or"],
        ),
        (path(), [f"{URL}: Required value: nonResourceURLs must contain at least one value"]),
        (path("/", "/a/*"), []),
        (path("a"), [f'{URL}[0]: Invalid value: "a": must start with slash']),
        (path("/a b"), [f'{URL}[0]: Invalid value: "/a b": must not contain white-space']),
        (path("/a//b"), [f'{URL}[0]: Invalid value: "/a//b": must not contain double slash']),
        (path("/*/b"), [f'{URL}[0]: Invalid value: "/*/b": wildcard can only do suffix matching']),
        (
            path("*", "/a"),
            [f'{URL}: Invalid value: ["*","/a"]: if \'*\' is present, must not specify other'],
        ),
    ],
)
def test_flow_schemas(obj: Obj, expected: list[str]) -> None:
    check(validate_flow_schema(obj), expected)


def check(found: list[Any], expected: list[str]) -> None:
    texts = [f"{each.field}: {each.text}" for each in found]
    assert len(texts) == len(expected), texts
    assert [text[: len(head)] for text, head in zip(texts, expected, strict=True)] == expected


def level(kind: str = "Limited", name: str = "l", **spec: Any) -> Obj:
    return {"metadata": {"name": name}, "spec": {"type": kind, **spec}}


def limited(**fields: Any) -> Obj:
    return level(limited={"limitResponse": {"type": "Reject"}, **fields})


def queues(length: int, count: int, hand: int) -> Obj:
    queuing = {"queueLengthLimit": length, "queues": count, "handSize": hand}
    return limited(limitResponse={"type": "Queue", "queuing": queuing})


PRESERVE = "flowcontrol.k8s.io/v1beta3-preserve-zero-concurrency-shares"
QUEUING = "spec.limited.limitResponse.queuing"


@pytest.mark.parametrize(
    ("obj", "expected"),
    [
        (limited(), []),
        (queues(50, 64, 8), []),
        (defaults_of("catch-all", levels()), []),
        (level("Exempt", "exempt", exempt={"lendablePercent": 50}), []),
        (level("Exempt", "exempt"), []),
        (
            level(name="catch-all", limited={"limitResponse": {"type": "Reject"}, "nominalConcurrencyShares": 6}),
            ["spec: Invalid value: {"],
        ),
        (
            {**limited(), "metadata": {"name": "l", "annotations": {PRESERVE: ""}}},
            [f"metadata.annotations: Forbidden: annotation '{PRESERVE}' is forbidden"],
        ),
        (level("Exempt", "exempt", exempt={}), []),
        (
            level("Exempt", exempt={}),
            ["spec.type: Invalid value: \"Exempt\": type must be 'Exempt' if and only if name is"],
        ),
        (level(), ["spec.limited: Required value: must not be empty when type is Limited"]),
        (
            level(limited={"limitResponse": {"type": "Reject"}}, exempt={}),
            ["spec.exempt: Forbidden: must be nil if the type is"],
        ),
        (level("X"), ['spec.type: Unsupported value: "X": supported values: "Exempt", "Limited"']),
        (
            limited(nominalConcurrencyShares=-1, lendablePercent=101, borrowingLimitPercent=-1),
            [
                "spec.limited.nominalConcurrencyShares: Invalid value: -1: must be a non-negative integer",
                "spec.limited.lendablePercent: Invalid value: 101: must be between 0 and 100, inclusive",
                "spec.limited.borrowingLimitPercent: Invalid value: -1: if specified, must be a non-negative integer",
            ],
        ),
        (
            limited(limitResponse={"type": "X"}),
            ['spec.limited.limitResponse.type: Unsupported value: "X": supported values: "Queue", "Reject"'],
        ),
        (
            limited(limitResponse={"type": "Queue"}),
            [f"{QUEUING}: Required value: must not be empty if limited.limitResponse.type is Limited"],
        ),
        (
            limited(limitResponse={"type": "Reject", "queuing": {}}),
            [f"{QUEUING}: Forbidden: must be nil if limited.limitResponse.type is not Limited"],
        ),
        (queues(0, 5, 1), [f"{QUEUING}.queueLengthLimit: Invalid value: 0: must be positive"]),
        (queues(1, 5, 6), [f"{QUEUING}.handSize: Invalid value: 6: should not be greater than queues (5)"]),
        (
            queues(1, 1024, 7),
            [f"{QUEUING}.handSize: Invalid value: 7: required entropy bits of deckSize 1024 and handSize"],
        ),
    ],
)
def test_priority_levels(obj: Obj, expected: list[str]) -> None:
    check(validate_priority_level(obj), expected)


def test_conditions_are_of_different_types() -> None:
    status = {"conditions": [{"type": "A"}, {"type": "A"}, {}]}
    check(
        validate_status({"status": status}, {}),
        [
            'status.conditions[1].type: Duplicate value: "A"',
            "status.conditions[2].type: Required value: must not be empty",
        ],
    )
