"""The narrow door to the key-value store: what an API server needs of etcd, and nothing else.

Owns the `Store` protocol, its values and its errors. Two implementations stand beside it (`etcd.EtcdStore`,
`memory.MemoryStore`) and pass one contract suite (tests/contract/test_store.py). Keys are bytes in upstream's layout
(`keys.py`), values are opaque here. Every write is conditional: nothing overwrites blindly.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol


class KeyValue(NamedTuple):
    """One key at one revision."""

    key: bytes
    value: bytes
    create_revision: int
    mod_revision: int


class Page(NamedTuple):
    """Answer of a range read. `total` counts the keys of the whole range, `items` stops at the limit."""

    items: list[KeyValue]
    revision: int
    total: int
    more: bool


class Beside(NamedTuple):
    """Another key of a transaction: written on condition that its mod revision is `expected` (0: no such key).

    Without a value it is removed, whatever it holds.
    """

    key: bytes
    value: bytes | None = None
    expected: int = 0


class WriteResult(NamedTuple):
    """`ok`: written at `revision`. Otherwise a condition failed; `current` is what the key holds (None: nothing).

    `beside` is then what the keys beside it hold.
    """

    ok: bool
    revision: int
    current: KeyValue | None
    beside: tuple[KeyValue | None, ...] = ()


class StoreEvent(NamedTuple):
    """A change of one key. For a deletion `kv.value` is empty and `mod_revision` is the revision of the deletion."""

    kv: KeyValue
    deleted: bool


class WatchBatch(NamedTuple):
    """Changes in revision order, complete up to `revision`. Without events it only reports progress."""

    events: Sequence[StoreEvent]
    revision: int


class StoreError(Exception):
    """Base of everything a store raises."""


class Compacted(StoreError):
    """The asked revision has been compacted away."""

    def __init__(self, revision: int) -> None:
        super().__init__(f"revision has been compacted (oldest kept: {revision})")
        self.revision = revision


class FutureRevision(StoreError):
    """The asked revision has not happened yet."""


class TooLargeValue(StoreError):
    """The value exceeds what the store accepts in one request."""


class StoreUnavailable(StoreError):
    """The store cannot be reached; the request had no effect."""


class OutcomeUnknown(StoreUnavailable):
    """The connection was lost after a write had been sent and the result could not be learnt in time."""


class StoreWatch(Protocol):
    """A running watch. Not shared between tasks."""

    async def next(self) -> WatchBatch:
        """The next batch. Raises Compacted when the start revision is gone, StoreUnavailable when the stream broke."""

    async def request_progress(self) -> None:
        """Ask for a batch that tells how far the watch has come."""

    async def close(self) -> None:
        """End the watch."""


OnWrite = Callable[[int, bytes, bytes | None, int], None]


class Store(Protocol):
    """Linearizable key-value store with revisions, as etcd v3 offers it.

    `on_write(revision, key, value, expected)` may be set: a store whose watch lags behind its acknowledgements calls it
    for every write that it knows to have happened at exactly that revision, before the write returns.
    """

    on_write: OnWrite | None

    async def get(self, key: bytes) -> tuple[KeyValue | None, int]:
        """The key as of now and the store's revision."""

    async def range(self, start: bytes, end: bytes, *, limit: int = 0, revision: int = 0) -> Page:
        """Keys in [start, end) in order, as of `revision` (0: now). Raises Compacted or FutureRevision."""

    async def create(self, key: bytes, value: bytes, ttl: float = 0.0, beside: Sequence[Beside] = ()) -> WriteResult:
        """Write if the key does not exist. With a `ttl` (real seconds) it goes away by itself, some time after that.

        What is `beside` is written in the same transaction: all of it or nothing.
        """

    async def replace(
        self, key: bytes, value: bytes, expected: int, ttl: float = 0.0, beside: Sequence[Beside] = ()
    ) -> WriteResult:
        """Write if the key's mod revision is `expected`; its time begins anew, or it stays for good."""

    async def delete(self, key: bytes, expected: int, beside: Sequence[Beside] = ()) -> WriteResult:
        """Remove if the key's mod revision is `expected`."""

    async def current_revision(self) -> int:
        """The revision of the newest acknowledged write of anybody (a linearizable read)."""

    async def watch(self, prefix: bytes, after: int) -> StoreWatch:
        """All changes under `prefix` with a revision greater than `after`."""

    async def compact(self, revision: int) -> None:
        """Forget history before `revision`; compacting what is compacted is no error."""

    async def size(self) -> int:
        """Bytes that the database takes."""

    async def close(self) -> None:
        """Release connections."""


def prefix_end(prefix: bytes) -> bytes:
    """The smallest key that is greater than every key with this prefix."""
    for i in range(len(prefix) - 1, -1, -1):
        if prefix[i] < 0xFF:
            return prefix[:i] + bytes([prefix[i] + 1])
    return b"\0"
