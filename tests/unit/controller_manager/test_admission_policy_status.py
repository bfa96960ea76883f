"""Which fields policies name that their kinds do not have."""

from __future__ import annotations

from typing import Any

import pytest

from controller_manager.admission_policy_status import plan_warnings


def spec(expression: str, *plurals: str, message: str = "", group: str = "apps") -> dict[str, Any]:
    rule = {"apiGroups": [group], "apiVersions": ["v1"], "resources": list(plurals or ("deployments",))}
    validation = {"expression": expression, **({"messageExpression": message} if message else {})}
    return {"matchConstraints": {"resourceRules": [rule]}, "validations": [validation]}


@pytest.mark.parametrize(
    "expression",
    [
        "object.spec.replicas > 1 && has(object.spec.template.spec.containers)",
        "object.metadata.labels.anything == 'x' && object.metadata.?annotations.hasValue()",
        "object.metadata.name.startsWith('object.spec.nope') // object.nope",
        "object.spec.template.spec.containers.all(c, c.nope == 1)",
        "variables.object.nope && params.nope && request.object.nope",
    ],
)
def test_sound_expressions(expression: str) -> None:
    assert plan_warnings(spec(expression)) == []


def test_undefined_fields_are_told_as_upstream_does() -> None:
    assert plan_warnings(spec("object.replicas > 1")) == [
        {
            "fieldRef": "spec.validations[0].expression",
            "warning": "apps/v1, Kind=Deployment: ERROR: <input>:1:7: undefined field 'replicas'\n"
            " | object.replicas > 1\n | ......^",
        }
    ]
    found = plan_warnings(spec("true\n&& oldObject.spec.podName == ''", message="object.spec.nope + ''"))
    assert [each["fieldRef"] for each in found] == [
        "spec.validations[0].expression",
        "spec.validations[0].messageExpression",
    ]
    assert "<input>:2:18: undefined field 'podName'" in found[0]["warning"]


def test_every_matched_kind_is_checked_and_wildcards_are_not() -> None:
    [both] = plan_warnings(spec("object.spec.replicas > 1", "deployments", "daemonsets", "statefulsets"))
    assert both["warning"].startswith("apps/v1, Kind=DaemonSet: ")
    assert "Kind=Deployment" not in both["warning"]
    assert plan_warnings(spec("object.nope", "*")) == []
    assert plan_warnings(spec("object.nope", "crontabs", group="example.com")) == []
