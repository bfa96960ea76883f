"""The files of `conversations/`: reading and writing them, and what was peculiar to the recording server."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

Obj = dict[str, Any]
AGE = re.compile(r"(\d+(\.\d+)?(ms|[smhdy]))+")
FOLDER = Path(__file__).with_name("conversations")

# The recorded server was a distribution's: its token volumes have a fourth source, a ConfigMap that we do not make.
_EXTRA_SOURCE = "openshift-service-ca.crt"
_EXTRA_LINES = 18
"""Lines that the source takes in a pod's dump, in which upstream's messages count lines."""
_HUNK = re.compile(r"@@ -(\d+),(\d+) \+(\d+),(\d+) @@")


def names() -> list[str]:
    """All scenarios."""
    return sorted(path.stem for path in FOLDER.glob("*.json"))


def load(name: str) -> Obj:
    """A scenario, without what was peculiar to the recording server."""
    scenario: Obj = json.loads((FOLDER / f"{name}.json").read_text())
    for step in scenario["steps"]:
        step["expect"] = _plain(step["expect"])
    return scenario


def dump(scenario: Obj) -> str:
    """A scenario as it is checked in: one line per step, so that changes can be read."""
    head = {key: value for key, value in scenario.items() if key != "steps"}
    lines = ",\n".join(json.dumps(step, ensure_ascii=False, separators=(",", ":")) for step in scenario["steps"])
    return f'{json.dumps(head, ensure_ascii=False)[:-1]}, "steps": [\n{lines}\n]}}\n'


def ageless(row: Obj) -> Obj:
    """A row of a watch, whose Tables do not name their columns again: what looks like an age is one."""
    cells = ["<age>" if isinstance(cell, str) and AGE.fullmatch(cell) else cell for cell in row["cells"]]
    return {**row, "cells": cells}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        if value.get("kind") == "Table" and value.get("columnDefinitions") is None:
            value = {**value, "rows": [ageless(row) for row in value.get("rows") or ()]}
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value if not _is_extra(item)]
    return _HUNK.sub(_shifted, value) if isinstance(value, str) and "@@ -" in value else value


def _is_extra(item: Any) -> bool:
    return isinstance(item, dict) and (item.get("configMap") or {}).get("name") == _EXTRA_SOURCE


def _shifted(hunk: re.Match[str]) -> str:
    """Hunks behind the volumes, which come first in a pod, begin that much earlier."""
    before, count, after, new = map(int, hunk.groups())
    if before < 2 * _EXTRA_LINES:
        return hunk[0]
    return f"@@ -{before - _EXTRA_LINES},{count} +{after - _EXTRA_LINES},{new} @@"
