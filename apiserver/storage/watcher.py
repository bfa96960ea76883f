"""One client's watch: a bounded buffer between the cache and a connection.

The cache pushes and never waits; the door iterates batches. A watcher that does not keep up is ended with an Expired
error, so that its client lists again, and costs the others nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from itertools import islice
from typing import Self

from apiserver.storage.entry import BOOKMARK, NO_KEY, Event, Selection
from apiserver.storage.form import ObjectForm
from machinery.errors import Expired, StatusError

BUFFER = 16_384
"""Events that may wait for one watcher; they are shared bytes, so the cost is what has left the caches meanwhile."""
BUFFER_BYTES = 64 << 20
WEIGHED = 32
"""Waiting events are weighed so many at a time; a watcher who keeps up pays nothing for it."""

Sink = Callable[[list[Event]], bool]
Shares = dict[tuple[str, str], Sequence[Event]]


class Watcher:
    """Async iterator of event batches. Must be closed (`aclose`, or `async with`)."""

    def __init__(
        self,
        selection: Selection,
        form: ObjectForm,
        *,
        after: int,
        bookmarks: bool,
        forget: Callable[[Watcher], None],
        start: Callable[[Watcher], Awaitable[None]] | None = None,
        progress: Callable[[], int] = lambda: 0,
        limit: int | None = None,
    ) -> None:
        self.selection = selection
        self.bookmarks = bookmarks
        self.translate: Callable[[Event], Event] | None = None
        """Set for versions that are not the stored one: what each event becomes on its way out."""
        self.sink: Sink | None = None
        """Takes a batch of untranslated events without waking the reader, or says that it cannot."""
        self.translate_batch: Callable[[Sequence[Event]], Awaitable[Sequence[Event]]] | None = None
        """The same where somebody has to be asked; it may leave events out. What it raises ends the watch."""
        self._form = form
        self._after = after
        self._forget = forget
        self._start = start
        self._progress = progress
        self._limit = BUFFER if limit is None else limit
        self._buffer: list[Event] = []
        self._weighed = 0  # events at the front of the buffer whose weight is known
        self._weight = 0
        self._error: StatusError | None = None
        self._closed = False
        self._waiter: asyncio.Future[None] | None = None

    def preload(self, events: Sequence[Event]) -> None:
        """Put what happened before the watcher joined in front; already selected, not counted against the limit."""
        self._buffer.extend(events)
        self._limit += len(events)
        self._weighed = len(self._buffer)
        self._wake()

    def push(self, events: Sequence[Event], shares: Shares | None = None) -> None:
        """Offer new events, in order; takes what the selection sees. Whoever pushes calls `wake` afterwards.

        `shares` keeps what selections by key alone see of these very events, for the other watchers.
        """
        if self._closed or self._error is not None:
            return
        if self._after:
            events = [event for event in events if event.resource_version > self._after]
            if not events:
                return
            self._after = 0
            shares = None
        if not self.selection.everything:
            events = self._seen(events, shares)
            if not events:
                return
        if len(self._buffer) + len(events) > self._limit or self._too_heavy():
            self._take()
            self.fail(Expired("the watch did not keep up with the events and was ended; list again"))
            return
        self._buffer.extend(events)

    def _too_heavy(self) -> bool:
        waiting = len(self._buffer)
        if waiting - self._weighed >= WEIGHED:
            self._weight += sum(len(event.raw) for event in islice(self._buffer, self._weighed, None))
            self._weighed = waiting
        return self._weight > BUFFER_BYTES

    def _take(self) -> list[Event]:
        batch, self._buffer = self._buffer, []
        self._weighed = self._weight = 0
        return batch

    def _seen(self, events: Sequence[Event], shares: Shares | None) -> Sequence[Event]:
        selection, form = self.selection, self._form
        if shares is None or selection.selective:
            return [seen for event in events if (seen := selection.view(event, form)) is not None]
        place = selection.namespace, selection.name
        found = shares.get(place)
        if found is None:
            found = shares[place] = [event for event in events if selection.matches_key(event.key)]
        return found

    def wake(self) -> None:
        """Let the reader have what is buffered."""
        buffer = self._buffer
        if not buffer:
            return
        sink, waiter = self.sink, self._waiter
        plain = self.translate is None and self.translate_batch is None
        # Only while the reader waits: otherwise it is about to write events that come before these.
        if sink is not None and plain and waiter is not None and not waiter.done() and sink(buffer):
            self._take()
            return
        self._wake()

    def bookmark(self, revision: int, *, initial_events_end: bool = False) -> None:
        """Tell the watcher that it has seen everything up to `revision`."""
        raw = self._form.bookmark(revision, initial_events_end=initial_events_end)
        if not self._closed and self._error is None and revision > self._after:
            self._buffer.append(Event(BOOKMARK, raw, NO_KEY, revision))
            self._wake()

    def remind(self) -> None:
        """A bookmark of how far the server has come, for a watch that wants bookmarks."""
        if self.bookmarks and self._start is None:
            self.bookmark(self._progress())

    def fail(self, error: StatusError) -> None:
        """End the watch; what is buffered is still delivered."""
        if self._error is None:
            self._error = error
            self._forget(self)
            self._wake()

    def end(self) -> None:
        """End the watch without an error; what is buffered is still delivered."""
        self._closed = True
        self._forget(self)
        self._wake()

    async def aclose(self) -> None:
        """Leave the cache; a pending `__anext__` ends."""
        self.end()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> list[Event]:
        if self._start is not None:
            start, self._start = self._start, None
            await start(self)
        while True:
            while not self._buffer:
                if self._closed:
                    raise StopAsyncIteration
                if self._error is not None:
                    raise self._error
                self._waiter = asyncio.get_running_loop().create_future()
                try:
                    await self._waiter
                finally:
                    self._waiter = None
            batch = self._take()
            if self.translate_batch is not None:
                batch = list(await self.translate_batch(batch))
            if self.translate is not None:
                batch = [self.translate(event) for event in batch]
            if batch:
                return batch

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()
