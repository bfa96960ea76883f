"""Server-side apply: what a configuration makes of an object, of its managers, and who objects.

Owns the plan of one apply: merging, taking out what the manager gave up, conflicts and their texts, and the handover
from client-side apply. Pure; the registry writes the outcome. Called by `ResourceStore.apply`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from apiserver.apply import fieldset
from apiserver.apply.fieldset import FieldSet
from apiserver.apply.merge import merged, removed, with_structs
from apiserver.apply.ownership import (
    APPLY,
    UNOWNED,
    UPDATE,
    Entry,
    Identity,
    Kind,
    arranged,
    identity,
    make_entry,
    with_fields,
)
from apiserver.apply.shapes import Shape
from apiserver.apply.walk import Undeclared, compared, declared, fields_of
from machinery.errors import Conflict

Obj = dict[str, Any]
Managers = dict[Identity, Entry]

BEFORE_FIRST_APPLY = "before-first-apply"
KUBECTL = "kubectl"
LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
ANNOTATIONS_LIMIT = 256 * 1024

_encode = msgspec.json.Encoder(order="sorted").encode
_decode = msgspec.json.Decoder().decode


class Applied(NamedTuple):
    """`obj` is the very live object when the configuration changed nothing in it; neither carries managedFields."""

    obj: Obj
    managed: list[Entry]


class Disputed(Exception):
    """Fields of other managers would change."""

    def __init__(self, conflicts: Mapping[Identity, FieldSet]) -> None:
        super().__init__("conflict")
        self.conflicts = dict(conflicts)


def plan_apply(kind: Kind, live: Obj, config: Obj, manager: str, *, force: bool, now: str) -> Applied:
    """The object and its managers after an apply. `live` is {} for an object that does not exist.

    Raises Conflict, and Undeclared when the configuration does not fit the schema.
    """
    managed: list[Entry] = (live.get("metadata") or {}).get("managedFields") or []
    live = _unmanaged(live)
    managers: Managers = {identity(entry): entry for entry in managed}
    if not managers and live:
        fields = kind.created(live)
        if fields:
            entry = make_entry(BEFORE_FIRST_APPLY, UPDATE, kind.api_version, now, fields, kind.subresource)
            managers[identity(entry)] = entry
    stated = fieldset.without(declared(kind.shape, config), kind.ignored)
    try:
        applied = _applied(kind, live, config, stated, managers, manager, force=force, now=now)
    except Disputed as error:
        disputed = error.conflicts
        allowed = _handed_over(kind, live) if manager == KUBECTL else None
        if allowed is not None:
            disputed = {who: left for who, found in disputed.items() if (left := fieldset.difference(found, allowed))}
        if disputed:
            raise conflict(disputed) from None
        applied = _applied(kind, live, config, stated, managers, manager, force=True, now=now)
    if manager == KUBECTL:
        applied = applied._replace(obj=_with_last_applied(applied.obj, config))
    return applied


def _unmanaged(obj: Obj) -> Obj:
    meta = obj.get("metadata")
    if not meta or "managedFields" not in meta:
        return obj
    return {**obj, "metadata": {key: value for key, value in meta.items() if key != "managedFields"}}


def _applied(
    kind: Kind, live: Obj, config: Obj, stated: FieldSet, managers: Managers, manager: str, *, force: bool, now: str
) -> Applied:
    who: Identity = (manager, APPLY, "", kind.subresource)
    managers = dict(managers)
    last = managers.get(who)
    mine = make_entry(manager, APPLY, kind.api_version, last.get("time") if last else None, stated, kind.subresource)
    managers[who] = mine
    new = merged(kind.shape, live, config) if live else config
    if last is not None:
        new = _pruned(kind, new, managers, last)
    changed = new != live
    if changed:
        _settle(kind, live, new, managers, who, force=force)
        if who in managers:
            mine = managers[who]
    if who in managers:
        fields = fieldset.difference(mine["fieldsV1"], UNOWNED)
        if fields:
            time = now if changed else mine.get("time")
            managers[who] = make_entry(manager, APPLY, kind.api_version, time, fields, kind.subresource)
        else:
            del managers[who]
    return Applied(new if changed else live, arranged(list(managers.values())))


def _settle(kind: Kind, live: Obj, new: Obj, managers: Managers, who: Identity, *, force: bool) -> None:
    """Take the changed fields away from everybody else, in place. Raises Disputed unless forced."""
    difference = kind.compared(live, new)
    views = {kind.api_version: difference}
    conflicts: dict[Identity, FieldSet] = {}
    for other, entry in list(managers.items()):
        version = entry["apiVersion"]
        if other == who:
            continue
        view = views.get(version)
        if view is None:
            view = kind.seen_by(version, live, new)
            if view is None:
                del managers[other]
                continue
            views[version] = view
        disputed = fieldset.intersection(entry["fieldsV1"], view.changed)
        if disputed:
            conflicts[other] = disputed
        left = fieldset.difference(fieldset.difference(entry["fieldsV1"], disputed), view.removed)
        if left is not entry["fieldsV1"]:
            if left:
                managers[other] = with_fields(entry, left)
            else:
                del managers[other]
    if conflicts and not force:
        raise Disputed(conflicts)


def _pruned(kind: Kind, new: Obj, managers: Managers, last: Entry) -> Obj:
    """Without the fields that the manager stated last time and nobody states now."""
    version, gave = last["apiVersion"], fieldset.without(last["fieldsV1"], kind.ignored)
    if not gave:
        return new
    other = kind.others.get(version)
    if version != kind.api_version and other is None:
        return new
    shape, whole = (kind.shape, new) if other is None else (other.shape, other.to(new))
    gave = with_structs(shape, gave)
    rest = removed(shape, whole, gave) or {}
    owned: dict[str, FieldSet] = {}
    for entry in managers.values():
        of = entry["apiVersion"]
        owned[of] = fieldset.union(owned.get(of, {}), entry["fieldsV1"])
    rest = _with_owned(shape, whole, rest, owned.pop(version, {}))
    for of, fields in owned.items():
        rest = _with_owned_elsewhere(kind, version, whole, rest, of, fields)
    dangling = fieldset.intersection(_lost(shape, whole, rest, {}), gave)
    result: Obj = removed(shape, whole, dangling) or {}
    if other is None:
        return result
    return new if result == whole else other.back(result, new)


def _with_owned_elsewhere(kind: Kind, version: str, whole: Obj, rest: Obj, of: str, fields: FieldSet) -> Obj:
    """The same for managers of another version; what cannot be translated is left as it is."""
    back = kind.others.get(version)
    here, here_rest = (whole, rest) if back is None else (back.back(whole, whole), back.back(rest, whole))
    if of == kind.api_version:
        kept = _with_owned(kind.shape, here, here_rest, fields)
    else:
        other = kind.others.get(of)
        if other is None:
            return rest
        kept = other.back(_with_owned(other.shape, other.to(here), other.to(here_rest), fields), here)
    return kept if back is None else back.to(kept)


def _with_owned(shape: Shape, whole: Obj, rest: Obj, owned: FieldSet) -> Obj:
    found: Obj = removed(shape, whole, _lost(shape, whole, rest, owned)) or {}
    return found


def _lost(shape: Shape, whole: Obj, rest: Obj, owned: FieldSet) -> FieldSet:
    """What the whole has, the rest has not, and nobody owns."""
    there = with_structs(shape, fields_of(shape, whole))
    kept = fieldset.union(with_structs(shape, fields_of(shape, rest)), with_structs(shape, owned))
    return fieldset.difference(there, kept)


# -- conflicts --------------------------------------------------------------------------------------------------------


def conflict(disputed: Mapping[Identity, FieldSet]) -> Conflict:
    """The 409 of an apply: one cause per field."""
    found = [(_shown(who), list(fieldset.paths(fields))) for who, fields in sorted(disputed.items())]
    causes = [
        {"reason": "FieldManagerConflict", "message": f"conflict with {who}", "field": path}
        for who, paths in found
        for path in paths
    ]
    if len(causes) == 1:
        text = f"Apply failed with 1 conflict: {causes[0]['message']}: {causes[0]['field']}"
    else:
        lines = [line for who, paths in found for line in (f"conflicts with {who}:", *(f"- {path}" for path in paths))]
        text = f"Apply failed with {len(causes)} conflicts: " + "\n".join(lines)
    return Conflict(text, details={"causes": causes})


def _shown(who: Identity) -> str:
    manager, operation, version, subresource = who
    text = _encode(manager).decode()
    if subresource:
        text += f" with subresource {_encode(subresource).decode()}"
    return f"{text} using {version}" if operation == UPDATE else text


# -- client-side apply ------------------------------------------------------------------------------------------------


def _handed_over(kind: Kind, live: Obj) -> FieldSet | None:
    """The fields that client-side apply set and nobody changed since; None: there was none."""
    annotations = (live.get("metadata") or {}).get("annotations") or {}
    text = annotations.get(LAST_APPLIED)
    if not text:
        return None
    try:
        last = _decode(text)
        if not isinstance(last, dict) or last.get("apiVersion") != kind.api_version:
            return None
        fields = declared(kind.shape, last)
    except (msgspec.DecodeError, Undeclared):
        return None
    since = compared(kind.shape, last, live)
    return fieldset.difference(fieldset.difference(fields, since.changed), since.removed)


def _with_last_applied(obj: Obj, config: Obj) -> Obj:
    """Client-side apply finds its annotation as if it had applied itself; only where it had been before."""
    meta = obj.get("metadata") or {}
    annotations = meta.get("annotations") or {}
    if not annotations.get(LAST_APPLIED):
        return obj
    stated = dict(config)
    own = dict(stated.get("metadata") or {})
    if isinstance(own.get("annotations"), dict):
        own["annotations"] = {key: value for key, value in own["annotations"].items() if key != LAST_APPLIED}
        if not own["annotations"]:
            del own["annotations"]
    stated["metadata"] = own
    text = _encode(stated).decode() + "\n"
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    if text == annotations[LAST_APPLIED]:
        return obj
    annotations = {**annotations, LAST_APPLIED: text}
    if sum(len(key) + len(value) for key, value in annotations.items()) > ANNOTATIONS_LIMIT:
        del annotations[LAST_APPLIED]
    return {**obj, "metadata": {**meta, "annotations": annotations}}
