"""Asking the rules of any kind, for tables of objects and what a real API server says of them."""

from __future__ import annotations

import copy
from typing import Any

from api.resources import lookup
from apiserver.auth.user import UserInfo
from apiserver.registry.store import RequestContext
from apiserver.registry.strategy import strategy_for

Obj = dict[str, Any]
CONTEXT = RequestContext(UserInfo("tester"))
UID = "0b4cd0bd-6b3f-4a3c-8e5e-52a6f0a44a3c"


def _resource(kind: str) -> Any:
    group, _, rest = kind.rpartition("/")
    version, plural = rest.split(" ")
    found = lookup(group, version, plural)
    assert found is not None, kind
    return found


def created(kind: str, obj: Obj, ctx: RequestContext = CONTEXT) -> tuple[Obj, list[str]]:
    """`kind` as in "apps/v1 deployments": the object as it would be stored, and `field: text` of every finding."""
    resource = _resource(kind)
    strategy = strategy_for(resource)
    obj = copy.deepcopy(obj)
    meta = obj.setdefault("metadata", {})
    meta.setdefault("name", "web")
    meta["uid"] = UID
    if resource.namespaced:
        meta.setdefault("namespace", "default")
    strategy.canonicalize(obj)
    strategy.default(obj)
    strategy.prepare_create(ctx, obj)
    return obj, [str(each) for each in strategy.validate_create(ctx, obj)]


def updated(kind: str, old: Obj, change: Obj, subresource: str = "") -> tuple[Obj, list[str]]:
    """The object after a merge of `change`, and the findings; `old` is created first and has to be faultless."""
    strategy = strategy_for(_resource(kind)).for_subresource(subresource)
    before, findings = created(kind, old)
    assert findings == []
    new = merged(copy.deepcopy(before), change)
    strategy.canonicalize(new)
    strategy.default(new)
    strategy.prepare_update(CONTEXT, new, before)
    return new, [str(each) for each in strategy.validate_update(CONTEXT, new, before)]


def warned(kind: str, obj: Obj, change: Obj | None) -> list[str]:
    """The warnings about a new object, or about the change of it."""
    ctx, strategy = RequestContext(UserInfo("tester")), strategy_for(_resource(kind))
    if change is None:
        stored = created(kind, obj, ctx)[0]
        return ctx.warnings + strategy.warnings(stored)
    return strategy.warnings(updated(kind, obj, change)[0], created(kind, obj)[0])


def merged(obj: Any, change: Any) -> Any:
    """A JSON merge patch."""
    if not isinstance(change, dict):
        return change
    result = dict(obj) if isinstance(obj, dict) else {}
    for key, value in change.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merged(result.get(key), value)
    return result


def same(found: list[str], expected: list[str]) -> None:
    """As many findings, each beginning as expected, in any order (upstream walks maps at random)."""
    left = list(expected)
    for text in found:
        match = next((head for head in left if text.startswith(head)), None)
        assert match is not None, f"not expected: {text}\nof {found}"
        left.remove(match)
    assert not left, f"missing: {left}\namong {found}"
