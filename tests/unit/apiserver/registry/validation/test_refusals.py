"""Objects that a real API server refuses, and what it says: field, reason and text of every finding."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from api.resources import lookup
from apiserver.auth.user import UserInfo
from apiserver.registry.store import RequestContext
from apiserver.registry.strategy import strategy_for

CASES = json.loads(Path(__file__).with_name("refusals.json").read_text())


@pytest.mark.parametrize("case", [pytest.param(case, id=case["id"]) for case in CASES])
def test_findings(case: dict[str, Any]) -> None:
    resource = lookup(case["group"], case["version"], case["plural"])
    assert resource is not None
    strategy = strategy_for(resource)
    context = RequestContext(UserInfo("tester"))
    obj = case["body"]
    meta = obj.setdefault("metadata", {})
    meta["uid"] = "0b4cd0bd-6b3f-4a3c-8e5e-52a6f0a44a3c"
    if resource.namespaced:
        meta["namespace"] = "default"
    strategy.canonicalize(obj)
    strategy.default(obj)
    strategy.prepare_create(context, obj)
    findings = strategy.validate_create(context, obj)
    if not findings:  # addresses and ports are judged when they are reserved
        with pytest.raises(Exception) as refused:
            strategy.begin_create(context, obj)
        found = [(c["field"], c["reason"], c["message"]) for c in refused.value.causes]  # type: ignore[attr-defined]
    else:
        found = [(finding.field, finding.reason, finding.text) for finding in findings]
    assert sorted(found) == sorted(tuple(finding) for finding in case["findings"])
