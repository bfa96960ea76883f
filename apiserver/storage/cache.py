"""The watch cache of one resource: current objects as bytes, recent events, watchers.

Owns sorted keys, entries, a bounded ring of events and the fan-out. Never does I/O: the feed (`feed.WatchCache`) calls
`load` and `apply`; the registry reads. All methods are synchronous, so whoever reads sees one revision.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain

from apiserver.storage.entry import ADDED, DELETED, MODIFIED, Entry, Event, FieldReader, Selection
from apiserver.storage.form import BadObject, ObjectForm
from apiserver.storage.interface import KeyValue, StoreEvent
from apiserver.storage.keys import parse_suffix, suffix
from apiserver.storage.watcher import Shares, Watcher
from machinery import log
from machinery.errors import Expired
from machinery.log import kv

RING_EVENTS = 4_096
RING_BYTES = 4 << 20
RING_KEEP = 128
"""So many events are kept whatever their size, as upstream keeps at least a hundred."""
RING_ENCODED = 256
"""So many of the newest events keep their encodings; an older one is encoded again for whoever resumes there."""

SLICE = 512

UNPACED = 8
PACE = 0.002
"""Real seconds between two wake-ups of more than UNPACED watchers. A lone event is never held back."""

_log = log.get(__name__)


class ResourceCache:
    """Objects of one resource. `revision` of the feed is told by whoever calls."""

    def __init__(self, prefix: bytes, form: ObjectForm, read_fields: FieldReader) -> None:
        self.prefix = prefix
        self.form = form
        self.read_fields = read_fields
        self.modified = 0
        """Revision of the newest change of this resource."""
        self.unreadable: dict[str, str] = {}
        """Key suffixes whose values are no objects of this kind, and why; they are served as if they were not there."""
        self._names: list[str] = []
        self._entries: dict[str, Entry] = {}
        self._ring: deque[Event] = deque()
        self._ring_bytes = 0
        self._floor = 0
        self._watchers: set[Watcher] = set()
        self._unpushed: list[Event] = []
        self._woken = 0.0
        self._pending: asyncio.TimerHandle | None = None

    # -- reading ------------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, namespace: str, name: str) -> Entry | None:
        return self._entries.get(suffix(namespace, name))

    def select(self, selection: Selection, start: str = "") -> Iterator[Entry]:
        """Entries of a selection in key order, from key suffix `start` on."""
        entries = self._entries
        if selection.name and selection.namespace:
            entry = entries.get(suffix(selection.namespace, selection.name))
            if entry is not None and suffix(*entry.key) >= start and selection.matches_content(entry):
                yield entry
            return
        names = self.names(selection.namespace, start)
        if selection.selective or selection.name:
            matches = selection.matches
            for name in names:
                entry = entries[name]
                if matches(entry):
                    yield entry
        else:
            for name in names:
                yield entries[name]

    def names(self, namespace: str, start: str = "") -> Iterator[str]:
        """Sorted key suffixes of a namespace ("" = all), a slice at a time: a page of a long list costs little."""
        first, end = self._span(namespace, start)
        names = self._names
        return chain.from_iterable(names[at : min(at + SLICE, end)] for at in range(first, end, SLICE))

    def count(self, namespace: str, start: str = "") -> int:
        """How many names there are."""
        first, end = self._span(namespace, start)
        return max(end - first, 0)

    def _span(self, namespace: str, start: str) -> tuple[int, int]:
        names = self._names
        if not namespace:
            return bisect_left(names, start) if start else 0, len(names)
        return bisect_left(names, max(start, f"{namespace}/")), bisect_left(names, f"{namespace}0")

    def created(self, key: bytes) -> int | None:
        """Revision at which the object at a store key was created; None when it is not here."""
        entry = self._entries.get(key[len(self.prefix) :].decode("utf-8", "replace"))
        return None if entry is None else entry.created

    # -- feeding ------------------------------------------------------------------------------------------------------

    def load(self, items: Iterable[KeyValue], revision: int) -> None:
        """Take over a full snapshot. The first is where history starts; from a later one come the missed events."""
        self.unreadable.clear()
        fresh = {name: entry for name, entry in map(self._entry, items) if entry is not None}
        if not self._floor:
            self._entries = fresh
            self._names = sorted(fresh)
            self._floor = revision
            self.modified = max((entry.revision for entry in fresh.values()), default=0)
            return
        missed: list[Event] = []
        for name, old in self._entries.items():
            if name not in fresh:
                raw = self.form.restamp(old.raw, revision)
                missed.append(Event(DELETED, raw, old.key, revision, None, old))
        for name, entry in fresh.items():
            old_entry = self._entries.get(name)
            if old_entry is None or old_entry.revision != entry.revision:
                kind = ADDED if old_entry is None else MODIFIED
                missed.append(Event(kind, entry.raw, entry.key, entry.revision, entry, old_entry))
        missed.sort(key=lambda event: event.resource_version)
        self._entries = fresh
        self._names = sorted(fresh)
        self._publish(missed)

    def apply(self, changes: Sequence[StoreEvent]) -> None:
        """Take over changes in revision order and tell the watchers."""
        events: list[Event] = []
        for change in changes:
            event = self._deleted(change.kv) if change.deleted else self._put(change.kv)
            if event is not None:
                events.append(event)
        if events:
            self._publish(events)

    def _entry(self, kv_: KeyValue) -> tuple[str, Entry | None]:
        name = kv_.key[len(self.prefix) :].decode("utf-8", "replace")
        try:
            raw = self.form.with_revision(self.form.adopt(kv_.value), kv_.mod_revision)
        except BadObject as error:
            _log.error("Skipped unreadable object", extra=kv(key=kv_.key.decode("utf-8", "replace"), error=error))
            self.unreadable[name] = str(error)
            return name, None
        if self.unreadable:
            self.unreadable.pop(name, None)
        revision, created = kv_.mod_revision, kv_.create_revision
        return name, Entry(parse_suffix(name), raw, revision, revision if created == revision else created)

    def _put(self, kv_: KeyValue) -> Event | None:
        name, entry = self._entry(kv_)
        if entry is None:
            return None
        old = self._entries.get(name)
        self._entries[name] = entry
        if old is None:
            insort(self._names, name)
            return Event(ADDED, entry.raw, entry.key, entry.revision, entry, None)
        entry.key = old.key  # one key object per live object
        return Event(MODIFIED, entry.raw, entry.key, entry.revision, entry, old)

    def _deleted(self, kv_: KeyValue) -> Event | None:
        name = kv_.key[len(self.prefix) :].decode("utf-8", "replace")
        old = self._entries.pop(name, None)
        if old is None:
            self.unreadable.pop(name, None)
            return None
        del self._names[bisect_left(self._names, name)]
        return Event(DELETED, self.form.restamp(old.raw, kv_.mod_revision), old.key, kv_.mod_revision, None, old)

    def _publish(self, events: Sequence[Event]) -> None:
        if not events:
            return
        self.modified = max(self.modified, events[-1].resource_version)
        self._ring.extend(events)
        self._ring_bytes += sum(len(event.raw) for event in events)
        while len(self._ring) > RING_EVENTS or (self._ring_bytes > RING_BYTES and len(self._ring) > RING_KEEP):
            self._drop_oldest()
        for depth in range(RING_ENCODED, min(RING_ENCODED + len(events), len(self._ring))):
            self._ring[-1 - depth].forget_encodings()
        if self._watchers:
            self._unpushed.extend(events)
            self._wake_soon()

    def _drop_oldest(self) -> None:
        dropped = self._ring.popleft()
        self._ring_bytes -= len(dropped.raw)
        self._floor = dropped.resource_version

    def forget_until(self, revision: int) -> None:
        """Drop events up to a revision, but for the newest RING_KEEP: nobody is expected to resume so far back."""
        while len(self._ring) > RING_KEEP and self._ring[0].resource_version <= revision:
            self._drop_oldest()

    def _wake_soon(self) -> None:
        """Wake the watchers now, or together once PACE has passed: under load each then writes several events."""
        if len(self._watchers) <= UNPACED:
            self._wake_all()
            return
        loop = asyncio.get_running_loop()
        due = self._woken + PACE
        if loop.time() >= due:
            self._wake_all()
        elif self._pending is None:
            self._pending = loop.call_at(due, self._wake_all)

    def push(self) -> None:
        """Give the watchers what they will be woken for: whoever tells them anything else does this first."""
        events, self._unpushed = self._unpushed, []
        if events:
            shares: Shares = {}
            for watcher in tuple(self._watchers):
                watcher.push(events, shares)

    def _wake_all(self) -> None:
        if self._pending is not None:
            self._pending.cancel()
            self._pending = None
        if len(self._watchers) > UNPACED:
            self._woken = asyncio.get_running_loop().time()
        self.push()
        for watcher in tuple(self._watchers):
            watcher.wake()

    # -- watching -----------------------------------------------------------------------------------------------------

    def join(self, watcher: Watcher) -> None:
        """From now on the watcher gets every event."""
        self.push()  # not to the new one, which knows what has happened so far
        self._watchers.add(watcher)

    def forget(self, watcher: Watcher) -> None:
        self._watchers.discard(watcher)

    @property
    def watchers(self) -> Iterable[Watcher]:
        """Everybody who watches, with all events so far."""
        self.push()
        return tuple(self._watchers)

    def events_after(self, revision: int, selection: Selection) -> list[Event]:
        """What the selection has seen since `revision`. Raises Expired when the ring does not reach back so far."""
        if revision < self._floor:
            raise Expired.of_revision(revision, self._floor)
        found: list[Event] = []
        for event in reversed(self._ring):
            if event.resource_version <= revision:
                break
            seen = selection.view(event, self.form)
            if seen is not None:
                found.append(seen)
        found.reverse()
        return found

    def initial_events(self, selection: Selection) -> list[Event]:
        """The current state as ADDED events."""
        return [Event(ADDED, entry.raw, entry.key, entry.revision) for entry in self.select(selection)]
