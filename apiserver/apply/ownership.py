"""`metadata.managedFields`: who owns which fields after a plain write.

Owns the entries of the list: what a create or an update does to them, which fields nobody owns, merging of too many
entries, their order, and what clients may write into the list themselves. Entries are dicts as they are stored; entries
that do not change are kept as they are. Called by the registry for every write and by `server_side`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from apiserver.apply import fieldset
from apiserver.apply.fieldset import MEMBER, SELF, FieldSet
from apiserver.apply.shapes import Shape
from apiserver.apply.walk import NO_DIFFERENCE, Difference, compared, created, created_json

Obj = dict[str, Any]
Entry = dict[str, Any]
Identity = tuple[str, str, str, str]

APPLY, UPDATE = "Apply", "Update"
MOST_UPDATERS = 10
ANCIENT = "ancient-changes"

_UNOWNED_META = (
    "name",
    "namespace",
    "creationTimestamp",
    "selfLink",
    "uid",
    "clusterName",
    "generation",
    "managedFields",
    "resourceVersion",
)
UNOWNED: FieldSet = {
    "f:apiVersion": MEMBER,
    "f:kind": MEMBER,
    "f:metadata": {SELF: MEMBER, **{f"f:{name}": MEMBER for name in _UNOWNED_META}},
}
"""Fields that no manager owns: the server sets them, or they are the object's identity."""
_SKIPPED_META = frozenset(_UNOWNED_META)
_SKIPPED_ROOT = frozenset({"apiVersion", "kind", "metadata"})


class OtherVersion(NamedTuple):
    """Another version of a kind, in which some managers wrote."""

    shape: Shape
    to: Callable[[Obj], Obj]
    back: Callable[[Obj, Obj], Obj]
    """From the other version to this one; the second argument is the object in this version as it was before."""


class Kind:
    """One kind in one version, written through one door: the main resource or a subresource."""

    __slots__ = ("_meta", "_skip", "api_version", "ignored", "others", "shape", "subresource")

    def __init__(
        self,
        api_version: str,
        shape: Shape,
        subresource: str = "",
        ignored: FieldSet | None = None,
        others: Mapping[str, OtherVersion] | None = None,
    ) -> None:
        self.api_version = api_version
        self.shape = shape
        self.subresource = subresource
        self.ignored = ignored or {}
        """What this door does not write, whatever the client sends."""
        self.others = others or {}
        skip = {path[2:] for path, node in self.ignored.items() if not node}
        self._skip = frozenset(skip | _SKIPPED_ROOT)
        meta = shape.fields.get("metadata")
        self._meta = meta.shape if meta is not None else None

    def created(self, obj: Obj) -> FieldSet:
        """What the creator of an object owns."""
        found = created(self.shape, obj, self._skip)
        meta = obj.get("metadata")
        if meta and self._meta is not None:
            inner = created(self._meta, meta, _SKIPPED_META)
            if inner:
                found["f:metadata"] = inner
                if self.ignored:
                    found = fieldset.without(found, self.ignored)
        return found

    def created_json(self, obj: Obj) -> bytes:
        """The same as the inside of a JSON object; empty when nothing is owned."""
        found = created_json(self.shape, obj, self._skip)
        meta = obj.get("metadata")
        if meta and self._meta is not None:
            inner = created_json(self._meta, meta, _SKIPPED_META)
            if inner:
                found.append(b'"f:metadata":{%b}' % b",".join(inner))
        return b",".join(found)

    def compared(self, old: Obj, new: Obj) -> Difference:
        """What an update did, as far as anybody may own it."""
        return self._compared(self.shape, self._meta, old, new)

    def _compared(self, shape: Shape, meta: Shape | None, old: Obj, new: Obj) -> Difference:
        found = compared(shape, old, new, self._skip)
        before, after = old.get("metadata") or {}, new.get("metadata") or {}
        inner = NO_DIFFERENCE
        if meta is not None and before != after:
            inner = compared(meta, before, after, _SKIPPED_META)
        if found is NO_DIFFERENCE and inner is NO_DIFFERENCE:
            return NO_DIFFERENCE
        sets = []
        for whole, part in zip(found, inner, strict=True):
            both = {**whole, "f:metadata": part} if part else whole
            sets.append(fieldset.without(both, self.ignored))
        return Difference(*sets)

    def seen_by(self, version: str, old: Obj, new: Obj) -> Difference | None:
        """The same in the version that a manager used; None: the version is gone."""
        other = self.others.get(version)
        if other is None:
            return None
        meta = other.shape.fields.get("metadata")
        return self._compared(other.shape, meta.shape if meta else None, other.to(old), other.to(new))


def identity(entry: Entry) -> Identity:
    """What makes two entries the same manager's: appliers are one whatever version they use."""
    operation = entry["operation"]
    version = "" if operation == APPLY else entry["apiVersion"]
    return entry.get("manager", ""), operation, version, entry.get("subresource", "")


def make_entry(
    manager: str, operation: str, version: str, time: str | None, fields: FieldSet, subresource: str
) -> Entry:
    """An entry with its keys in upstream's order."""
    entry: Entry = {"manager": manager, "operation": operation, "apiVersion": version}
    if time:
        entry["time"] = time
    entry["fieldsType"] = "FieldsV1"
    entry["fieldsV1"] = fields
    if subresource:
        entry["subresource"] = subresource
    return entry


def with_fields(entry: Entry, fields: FieldSet) -> Entry:
    return {**entry, "fieldsV1": fields}


def plan_create(kind: Kind, obj: Obj, manager: str, now: str) -> list[Entry]:
    """The entries of a new object."""
    fields = kind.created(obj)
    if not fields:
        return []
    return [make_entry(manager, UPDATE, kind.api_version, now, fields, kind.subresource)]


def plan_create_json(kind: Kind, obj: Obj, manager: str, now: str) -> msgspec.Raw | None:
    """The same as JSON: creation is the hot path, and nobody reads the entries again."""
    fields = kind.created_json(obj)
    if not fields:
        return None
    front = _fronts.get((manager, kind.api_version))
    if front is None:
        if len(_fronts) >= _FRONTS_KEPT:
            _fronts.clear()
        names = _encode(manager), _encode(kind.api_version)
        front = _fronts[manager, kind.api_version] = (
            b'[{"manager":%b,"operation":"Update","apiVersion":%b,"time":"' % names
        )
    through = b',"subresource":%b' % _encode(kind.subresource) if kind.subresource else b""
    return msgspec.Raw(b'%b%b","fieldsType":"FieldsV1","fieldsV1":{%b}%b}]' % (front, now.encode(), fields, through))


_encode = msgspec.json.Encoder().encode
_fronts: dict[tuple[str, str], bytes] = {}
_FRONTS_KEPT = 1024


def plan_update(
    kind: Kind, old: Obj, new: Obj, managed: list[Entry], manager: str, now: str, difference: Difference | None = None
) -> list[Entry]:
    """The entries after an update; the very list when it changed nothing. Without entries nothing is tracked.

    `now` is empty where upstream keeps no time (scale).
    """
    if not managed:
        return managed
    if difference is None:
        difference = kind.compared(old, new)
    elsewhere = {entry["apiVersion"] for entry in managed} - {kind.api_version}
    if difference is NO_DIFFERENCE and not elsewhere:
        return managed
    views: dict[str, Difference | None] = {kind.api_version: difference}
    for version in elsewhere:
        views[version] = kind.seen_by(version, old, new)
    kept: list[Entry] = []
    same = True
    for entry in managed:
        view = views[entry["apiVersion"]]
        if view is None:
            same = False
            continue
        fields = entry["fieldsV1"]
        left = fieldset.difference(fieldset.difference(fields, view.changed), view.removed)
        if left is not fields:
            same = False
            if not left:
                continue
            entry = with_fields(entry, left)
        kept.append(entry)
    mine = fieldset.difference(difference.changed, UNOWNED)
    if not mine:
        return managed if same else arranged(kept)
    wanted = (manager, UPDATE, kind.api_version, kind.subresource)
    for index, entry in enumerate(kept):
        if identity(entry) == wanted:
            fields = fieldset.union(entry["fieldsV1"], mine)
            time = now or entry.get("time")
            kept[index] = make_entry(manager, UPDATE, kind.api_version, time, fields, kind.subresource)
            break
    else:
        kept.append(make_entry(manager, UPDATE, kind.api_version, now, mine, kind.subresource))
    return arranged(capped(kept))


def arranged(entries: list[Entry]) -> list[Entry]:
    """In upstream's order: appliers first, then by time."""
    return sorted(entries, key=_place) if len(entries) > 1 else entries


def _place(entry: Entry) -> tuple[str, str, str, str, str]:
    name, version = entry.get("manager", ""), entry["apiVersion"]
    return entry["operation"], entry.get("time") or "", name, version, entry.get("subresource", "")


def capped(entries: list[Entry]) -> list[Entry]:
    """At most ten updaters: the oldest of each version are merged into one entry."""
    updaters = [entry for entry in entries if entry["operation"] == UPDATE]
    excess = len(updaters) - MOST_UPDATERS
    if excess <= 0:
        return entries
    updaters.sort(key=lambda entry: (entry.get("time") or "", identity(entry)))
    kept = {identity(entry): entry for entry in entries}
    first: dict[str, Identity] = {}
    for entry in updaters:
        if excess <= 0:
            break
        version, who = entry["apiVersion"], identity(entry)
        bucket: Identity = (ANCIENT, UPDATE, version, "")
        oldest = first.setdefault(version, who)
        if oldest == who or who == bucket:
            continue
        collected = kept.get(bucket) or kept.pop(oldest)
        fields = fieldset.union(collected["fieldsV1"], entry["fieldsV1"])
        kept[bucket] = make_entry(ANCIENT, UPDATE, version, entry.get("time"), fields, "")
        del kept[who]
        excess -= 1
    return list(kept.values())


def is_reset(given: Any) -> bool:
    """A list of one empty entry: the client wants ownership forgotten. An empty list says nothing."""
    return isinstance(given, list) and len(given) == 1 and not given[0]


def plan_given(given: Any, live: Sequence[Entry]) -> list[Entry]:
    """The entries a plain write starts from: the client's own, if it sent usable ones."""
    if not given:
        return list(live)
    if is_reset(given):
        return []
    try:
        return [_accepted(entry) for entry in given]
    except (fieldset.BadFields, TypeError, AttributeError):
        return list(live)


def _accepted(entry: Any) -> Entry:
    operation, version = entry.get("operation"), entry.get("apiVersion")
    if operation not in (APPLY, UPDATE) or not isinstance(version, str) or not version:
        raise fieldset.BadFields("operation and apiVersion must be given")
    if entry.get("fieldsType") != "FieldsV1":
        raise fieldset.BadFields("fieldsType must be FieldsV1")
    texts = [entry.get(key) or "" for key in ("manager", "time", "subresource")]
    if not all(isinstance(text, str) for text in texts):
        raise fieldset.BadFields("manager, time and subresource must be text")
    fields = fieldset.accepted(entry.get("fieldsV1") or {})
    return make_entry(texts[0], operation, version, texts[1], fields, texts[2])


def same_but_time(left: Any, right: Any) -> bool:
    """Do two lists say the same, whenever it was said?"""
    left, right = left or [], right or []
    if len(left) != len(right):
        return False
    ours = {identity(entry): _timeless(entry) for entry in left}
    return ours == {identity(entry): _timeless(entry) for entry in right}


def _timeless(entry: Entry) -> Entry:
    return {key: value for key, value in entry.items() if key != "time"}
