"""What a real API server refuses beyond the recorded conversations: objects, changes of objects, and the findings.

`rules/*.json` hold cases: a kind, an object; perhaps a change (a merge patch) of it, perhaps of a subresource; and the
findings, told by how they begin, each as often as upstream tells it. The order is upstream's to choose. Some hold the
warnings too, of which every one counts, whole and in order.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.unit.apiserver.registry.validation.refused import created, same, updated, warned

CASES: dict[str, dict[str, Any]] = {
    f"{path.stem}-{index}": case
    for path in sorted(Path(__file__).with_name("rules").glob("*.json"))
    for index, case in enumerate(json.loads(path.read_text()))
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_findings(case: dict[str, Any]) -> None:
    if "change" in case:
        found = updated(case["kind"], case["object"], case["change"], case.get("subresource", ""))[1]
    else:
        found = created(case["kind"], case["object"])[1]
    same(found, case["findings"])


@pytest.mark.parametrize("case", [case for case in CASES.values() if "warnings" in case])
def test_warnings(case: dict[str, Any]) -> None:
    assert warned(case["kind"], case["object"], case.get("change")) == case["warnings"]
