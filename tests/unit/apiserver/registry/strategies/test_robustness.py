"""Objects of the right types but with any values: findings, never exceptions."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from api.resources import lookup
from apiserver.auth.user import UserInfo
from apiserver.registry.store import RequestContext
from apiserver.registry.strategy import Strategy, strategy_for
from machinery.errors import Invalid

Obj = dict[str, Any]
FOLDER = Path(__file__).parent.parent
CASES = json.loads((FOLDER / "defaults" / "stored.json").read_text())
SKIPPED = frozenset({"apiVersion", "kind", "metadata"})
QUANTITIES = frozenset({"requests", "limits", "capacity", "hard", "min", "max", "default", "defaultRequest"})
ROUNDS = 40


def mutate(value: Any, rng: random.Random, quantity: bool = False) -> Any:
    """The same types, other values: emptied, negated, dropped."""
    if isinstance(value, dict):
        changed: Obj = {}
        for key, item in value.items():
            roll = rng.random()
            if roll < 0.08:
                continue
            typed = quantity or key in QUANTITIES or key in ("storage", "divisor", "sizeLimit", "averageValue", "value")
            changed[key] = (
                ({} if roll < 0.12 else mutate(item, rng, typed))
                if isinstance(item, dict)
                else (mutate(item, rng, typed))
            )
        return changed
    if isinstance(value, list):
        if rng.random() < 0.08:
            return []
        items = [mutate(item, rng, quantity) for item in value]
        return items + items[:1] if rng.random() < 0.1 else items
    if rng.random() < 0.85:
        return value
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return rng.choice([-1, 0, 2**31 - 1])
    if isinstance(value, str) and not quantity:
        return rng.choice(["", "x y", "a/b/c", "-", "UPPER", "x" * 300, "1.2.3.4", "100%"])
    return value


def pipeline(strategy: Strategy, obj: Obj, old: Obj | None) -> Obj | None:
    """A create or, with `old`, an update and a status write; None = refused."""
    context = RequestContext(UserInfo("tester"))
    strategy.canonicalize(obj)
    strategy.default(obj)
    if old is None:
        strategy.prepare_create(context, obj)
        findings = strategy.validate_create(context, obj)
    else:
        strategy.prepare_update(context, obj, old)
        findings = strategy.validate_update(context, obj, old)
    strategy.warnings(obj, old)
    assert all(str(finding) and finding.reason for finding in findings)
    if findings:
        return None
    try:
        begin = strategy.begin_create(context, obj) if old is None else strategy.begin_update(context, obj, old)
    except Invalid:
        return None
    if begin is not None:
        begin(False)
    strategy.selectable_fields(obj)
    return obj


@pytest.mark.parametrize("case", [pytest.param(case, id=case["id"]) for case in CASES])
def test_any_values_are_judged(case: dict[str, Any]) -> None:
    resource = lookup(case["group"], case["version"], case["plural"])
    assert resource is not None
    strategy = strategy_for(resource)
    seed = sum(case["id"].encode())
    rng = random.Random(seed)
    meta = {"name": "x", "uid": "uid-1", "creationTimestamp": "2026-01-01T00:00:00Z"}
    if resource.namespaced:
        meta["namespace"] = "default"
    for _ in range(ROUNDS):
        obj = {"metadata": dict(meta), **{key: mutate(v, rng) for key, v in case["body"].items() if key not in SKIPPED}}
        pipeline(strategy, obj, None)
    old = {"metadata": dict(meta), **{key: v for key, v in case["body"].items() if key not in SKIPPED}}
    stored = pipeline(strategy, json.loads(json.dumps(old)), None)
    if stored is None:
        return
    raw = json.dumps(stored)
    for _ in range(ROUNDS):
        new = json.loads(raw)
        for key in new.keys() - SKIPPED:
            new[key] = mutate(new[key], rng)
        pipeline(strategy, new, json.loads(raw))
        pipeline(strategy.for_subresource("status"), json.loads(json.dumps(new)), json.loads(raw))
