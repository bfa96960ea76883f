"""What the watch cache holds (entries) and tells (events), and how both are selected.

Pure values over bytes. An entry decodes itself only when a selector asks, and only once; an event renders its REST line
once for all watchers. Called by the cache and the watchers; doors read `Event`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from apiserver.storage.form import ObjectForm, decode
from machinery.meta import ObjectKey
from machinery.selectors import FieldSelector, LabelSelector

ADDED = b"ADDED"
MODIFIED = b"MODIFIED"
DELETED = b"DELETED"
BOOKMARK = b"BOOKMARK"

FieldReader = Callable[[dict[str, Any]], Mapping[str, str]]
NO_KEY = ObjectKey("", "")


class _Metadata(msgspec.Struct):
    labels: dict[str, str] | None = None


class _Labelled(msgspec.Struct):
    metadata: _Metadata


_labels_of = msgspec.json.Decoder(_Labelled).decode


class Entry:
    """One object as of one revision: JSON bytes with the resourceVersion inside."""

    __slots__ = ("_fields", "_labels", "created", "key", "raw", "revision")

    def __init__(self, key: ObjectKey, raw: bytes, revision: int, created: int) -> None:
        self.key = key
        self.raw = raw
        self.revision = revision
        self.created = created
        self._labels: Mapping[str, str] | None = None
        self._fields: Mapping[str, str] | None = None

    @property
    def labels(self) -> Mapping[str, str]:
        if self._labels is None:
            try:
                self._labels = _labels_of(self.raw).metadata.labels or {}
            except msgspec.DecodeError:  # labels of a foreign writer that are no strings match nothing
                self._labels = {}
        return self._labels

    def decoded(self) -> dict[str, Any]:
        """The object as a new dict."""
        return decode(self.raw)

    def fields(self, read: FieldReader) -> Mapping[str, str]:
        """Values of the kind's selectable fields."""
        if self._fields is None:
            self._fields = read(decode(self.raw))
        return self._fields


class Event:
    """A change as watchers get it. `wire` is free for a door to keep its own encoding in."""

    __slots__ = ("_added", "_deleted", "_line", "entry", "key", "previous", "raw", "resource_version", "type", "wire")

    def __init__(
        self,
        type: bytes,
        raw: bytes,
        key: ObjectKey,
        resource_version: int,
        entry: Entry | None = None,
        previous: Entry | None = None,
    ) -> None:
        self.type = type
        self.raw = raw
        self.key = key
        self.resource_version = resource_version
        self.entry = entry
        self.previous = previous
        self.wire: Any = None
        self._line: bytes | None = None
        self._added: Event | None = None
        self._deleted: Event | None = None

    @property
    def line(self) -> bytes:
        """The event as one line of a REST watch."""
        line = self._line
        if line is None:
            line = self._line = b'{"type":"%b","object":%b}\n' % (self.type, self.raw)
        return line

    def forget_encodings(self) -> None:
        """Drop what can be made again; called when most watchers have got the event."""
        self.wire = self._line = self._added = self._deleted = None

    def as_added(self) -> Event:
        """For watchers whose selection the object has just entered."""
        if self.type is ADDED:
            return self
        if self._added is None:
            self._added = Event(ADDED, self.raw, self.key, self.resource_version)
        return self._added

    def as_deleted(self, form: ObjectForm) -> Event:
        """For watchers whose selection the object has just left: its last selected state at this revision."""
        if self.type is DELETED:
            return self
        if self._deleted is None:
            assert self.previous is not None  # nothing can leave without having been there
            raw = form.restamp(self.previous.raw, self.resource_version)
            self._deleted = Event(DELETED, raw, self.key, self.resource_version)
        return self._deleted


class Selection:
    """Which objects a list or watch wants. `matches` never decodes unless a selector needs it."""

    __slots__ = ("_fields", "_labels", "_read", "everything", "name", "namespace", "selective")

    def __init__(
        self,
        namespace: str = "",
        labels: LabelSelector | None = None,
        fields: FieldSelector | None = None,
        read: FieldReader = lambda obj: {},
    ) -> None:
        self.namespace = namespace
        self.name = ""
        self._labels = labels if labels is not None and not labels.empty else None
        self._read = read
        rest = []
        for requirement in fields.requirements if fields is not None else ():
            if requirement.field == "metadata.name" and requirement.operator == "=" and requirement.value:
                if not self.name:
                    self.name = requirement.value
                    continue
            elif requirement.field == "metadata.namespace" and requirement.operator == "=" and not self.namespace:
                self.namespace = requirement.value
                continue
            rest.append(requirement)
        self._fields = FieldSelector(tuple(rest)) if rest else None
        self.selective = self._labels is not None or self._fields is not None
        """Does membership depend on the object's content (not only on its key)?"""
        self.everything = not self.selective and not self.namespace and not self.name

    def matches_key(self, key: ObjectKey) -> bool:
        """The part that no update of an object changes."""
        return (not self.namespace or key.namespace == self.namespace) and (not self.name or key.name == self.name)

    def matches(self, entry: Entry) -> bool:
        if self.everything:
            return True
        return self.matches_key(entry.key) and self.matches_content(entry)

    def matches_content(self, entry: Entry) -> bool:
        """The part that looks into the object."""
        if self._labels is not None and not self._labels.matches(entry.labels):
            return False
        if self._fields is None:
            return True
        values = entry.fields(self._read)
        return self._fields.matches(lambda field: values.get(field, ""))

    def view(self, event: Event, form: ObjectForm) -> Event | None:
        """The event as somebody sees it who only sees the selection; None: not at all."""
        if self.everything:
            return event
        if not self.matches_key(event.key):
            return None
        if not self.selective:
            return event
        now = event.entry is not None and self.matches_content(event.entry)
        before = event.previous is not None and self.matches_content(event.previous)
        if now:
            return event if before else event.as_added()
        return event.as_deleted(form) if before else None
