"""Which toleration covers which taint."""

from __future__ import annotations

import pytest

from scheduler.framework.node_facts import Taint
from scheduler.framework.tolerations import is_tolerated
from tests.unit.scheduler.objects import tolerate

TAINT: Taint = ("dedicated", "batch", "NoSchedule")


@pytest.mark.parametrize(
    ("given", "covered"),
    [
        pytest.param({"key": "dedicated", "value": "batch"}, True, id="equal, any effect"),
        pytest.param({"key": "dedicated", "value": "batch", "effect": "NoSchedule"}, True, id="equal, same effect"),
        pytest.param({"key": "dedicated", "value": "batch", "effect": "NoExecute"}, False, id="another effect"),
        pytest.param({"key": "dedicated", "value": "web"}, False, id="another value"),
        pytest.param({"key": "dedicated"}, False, id="no value"),
        pytest.param({"key": "dedicated", "operator": "Exists"}, True, id="exists"),
        pytest.param({"key": "other", "operator": "Exists"}, False, id="another key exists"),
        pytest.param({"operator": "Exists"}, True, id="everything"),
        pytest.param({"operator": "Exists", "effect": "NoExecute"}, False, id="everything of another effect"),
        pytest.param({"operator": "Equal", "value": "batch"}, False, id="no key needs Exists"),
        pytest.param({"key": "dedicated", "operator": "Like", "value": "batch"}, False, id="unknown operator"),
        pytest.param({"key": "dedicated", "operator": "", "value": "batch"}, True, id="operator defaults to Equal"),
    ],
)
def test_toleration(given: dict[str, str], covered: bool) -> None:
    assert is_tolerated([tolerate(**given)], TAINT) is covered
