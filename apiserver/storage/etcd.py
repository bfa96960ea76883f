"""The store on etcd v3, over its own gRPC API.

Owns the connection, the translation of etcd's errors, and what becomes of a write whose connection broke: every write
is a compare-and-swap, so it is sent again, and if the first one had landed after all, the key shows our value. What
cannot be told apart is reported as OutcomeUnknown, never as success. Reads wait out a restart of etcd, bounded by
`timeout`. These bounds are real seconds: they belong to a disk and a process, not to the simulated cluster's clock.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from apiserver.storage import http2
from apiserver.storage.http2 import RpcError
from apiserver.storage.interface import (
    Beside,
    Compacted,
    FutureRevision,
    KeyValue,
    OnWrite,
    OutcomeUnknown,
    Page,
    StoreError,
    StoreEvent,
    StoreUnavailable,
    StoreWatch,
    TooLargeValue,
    WatchBatch,
    WriteResult,
    prefix_end,
)
from apiserver.storage.rpc import Call, Channel
from apiserver.storage.transactions import conditional_write, transaction
from machinery.tls import KeyPair

if TYPE_CHECKING:
    from proto.etcd.v1 import etcd_pb2 as pb

TIMEOUT = 10.0
RETRY_FIRST, RETRY_MOST = 0.02, 0.5
LEASE_SECONDS, LEASE_USES = 60.0, 1000
"""So long and for so many keys one lease serves, as upstream's does: a lease for every event would be too many."""
NOT_A_KEY = b"\0"
"""Reading it costs nothing and its answer carries the current revision."""


class EtcdStore:
    """One etcd (cluster) behind one channel. Connects with the first call; needs a running loop."""

    def __init__(self, target: str, pair: KeyPair | None = None, *, timeout: float = TIMEOUT) -> None:
        self._target = target
        self._pair = pair
        self._timeout = timeout
        self._channel: Channel | None = None
        self._methods: dict[str, tuple[bytes, Callable[[bytes], Any]]] = {}
        self._seen = 0
        self._leases: dict[float, tuple[int, float, int]] = {}
        """By lifetime: the lease in use, until when (loop time), and for how many keys so far."""
        self.on_write: OnWrite | None = None

    # -- connection ---------------------------------------------------------------------------------------------------

    def _connect(self) -> Channel:
        from proto.etcd.v1 import etcd_pb2  # loaded only where a connection is really made

        self._pb = etcd_pb2
        opened = self._channel = Channel(self._target, self._pair)
        self._methods = {
            name: (opened.method(f"/etcdserverpb.{service}/{name}"), response.FromString)
            for service, name, response in (
                ("KV", "Range", etcd_pb2.RangeResponse),
                ("KV", "Txn", etcd_pb2.TxnResponse),
                ("KV", "Compact", etcd_pb2.CompactionResponse),
                ("Lease", "LeaseGrant", etcd_pb2.LeaseGrantResponse),
                ("Maintenance", "Status", etcd_pb2.StatusResponse),
                ("Watch", "Watch", etcd_pb2.WatchResponse),
            )
        }
        return opened

    @property
    def _messages(self) -> Any:
        if self._channel is None:
            self._connect()
        return self._pb

    async def close(self) -> None:
        opened, self._channel = self._channel, None
        if opened is not None:
            await opened.close()

    async def _call(self, name: str, request: bytes, seconds: float) -> Any:
        channel = self._channel or self._connect()
        method, decode = self._methods[name]
        response = decode(await channel.unary(method, request, seconds))
        self._seen = max(self._seen, response.header.revision)
        return response

    # -- reading ------------------------------------------------------------------------------------------------------

    async def get(self, key: bytes) -> tuple[KeyValue | None, int]:
        response = await self._read("Range", self._messages.RangeRequest(key=key))
        return (_key_value(response.kvs[0]) if response.kvs else None), response.header.revision

    async def range(self, start: bytes, end: bytes, *, limit: int = 0, revision: int = 0) -> Page:
        request = self._messages.RangeRequest(key=start, range_end=end, limit=limit, revision=revision)
        response = await self._read("Range", request)
        return Page([_key_value(kv) for kv in response.kvs], response.header.revision, response.count, response.more)

    async def current_revision(self) -> int:
        response = await self._read("Range", self._messages.RangeRequest(key=NOT_A_KEY, count_only=True))
        return int(response.header.revision)

    async def size(self) -> int:
        return int((await self._read("Status", self._messages.StatusRequest())).dbSize)

    async def compact(self, revision: int) -> None:
        try:
            await self._read("Compact", self._messages.CompactionRequest(revision=revision))
        except Compacted:
            return

    async def _read(self, name: str, request: Any) -> Any:
        """Send until answered; requests without an effect may be repeated freely."""
        message = request.SerializeToString()
        loop = asyncio.get_running_loop()
        deadline, delay = loop.time() + self._timeout, RETRY_FIRST
        while True:
            try:
                return await self._call(name, message, max(deadline - loop.time(), 0.001))
            except RpcError as error:
                failure = _failure(error)
                if not isinstance(failure, StoreUnavailable) or loop.time() + delay >= deadline:
                    raise failure from error
                await asyncio.sleep(delay)
                delay = min(delay * 2, RETRY_MOST)

    # -- writing ------------------------------------------------------------------------------------------------------

    async def create(self, key: bytes, value: bytes, ttl: float = 0.0, beside: Sequence[Beside] = ()) -> WriteResult:
        return await self._write(key, value, 0, await self._lease(ttl) if ttl else 0, beside)

    async def replace(
        self, key: bytes, value: bytes, expected: int, ttl: float = 0.0, beside: Sequence[Beside] = ()
    ) -> WriteResult:
        return await self._write(key, value, expected, await self._lease(ttl) if ttl else 0, beside)

    async def delete(self, key: bytes, expected: int, beside: Sequence[Beside] = ()) -> WriteResult:
        return await self._write(key, None, expected, 0, beside)

    async def _lease(self, ttl: float) -> int:
        """A lease of at least so many seconds, shared by the writes of the next minute."""
        now = asyncio.get_running_loop().time()
        number, until, uses = self._leases.get(ttl, (0, 0.0, 0))
        if now >= until or uses >= LEASE_USES:
            spare = min(LEASE_SECONDS, ttl)
            request = self._messages.LeaseGrantRequest(TTL=math.ceil(ttl + spare))
            number, until, uses = (await self._read("LeaseGrant", request)).ID, now + spare, 0
        self._leases[ttl] = number, until, uses + 1
        return number

    async def _write(
        self, key: bytes, value: bytes | None, expected: int, lease: int, beside: Sequence[Beside]
    ) -> WriteResult:
        if beside:
            request = transaction(key, value, expected, beside, lease)
        else:
            request = conditional_write(key, value, expected, lease)
        loop = asyncio.get_running_loop()
        deadline, delay = loop.time() + self._timeout, RETRY_FIRST
        seen_before, in_doubt = self._seen, False
        while True:
            try:
                response = await self._call("Txn", request, max(deadline - loop.time(), 0.001))
            except RpcError as error:
                failure = _failure(error)
                if not isinstance(failure, StoreUnavailable):
                    self._leases.clear()  # it may be a lease that is no more
                    raise failure from error
                in_doubt = in_doubt or error.sent
                if loop.time() + delay >= deadline:
                    raise (OutcomeUnknown(str(failure)) if in_doubt else failure) from error
                await asyncio.sleep(delay)
                delay = min(delay * 2, RETRY_MOST)
                continue
            revision = response.header.revision
            if response.succeeded:
                if self.on_write is not None and not beside:  # of several keys at one revision the watch tells
                    self.on_write(revision, key, value, expected)
                return WriteResult(True, revision, None)
            current, *others = [
                _key_value(each.response_range.kvs[0]) if each.response_range.kvs else None
                for each in response.responses
            ]
            result = WriteResult(False, revision, current, tuple(others))
            return settle(result, value, expected, seen_before) if in_doubt else result

    # -- watching -----------------------------------------------------------------------------------------------------

    async def watch(self, prefix: bytes, after: int) -> StoreWatch:
        messages = self._messages
        create = messages.WatchCreateRequest(
            key=prefix, range_end=prefix_end(prefix), start_revision=after + 1 if after else 0, fragment=True
        )
        request = messages.WatchRequest(create_request=create).SerializeToString()
        channel = self._channel or self._connect()
        try:
            call = await channel.stream(self._methods["Watch"][0], request, self._timeout)
        except RpcError as error:
            raise _failure(error) from error
        watch = _EtcdWatch(call, messages)
        await watch.created(self._timeout)
        return watch


def settle(refused: WriteResult, value: bytes | None, expected: int, seen_before: int) -> WriteResult:
    """A repeated write was refused: had the first one landed? Raises OutcomeUnknown when nobody can tell."""
    current = refused.current
    if value is None:
        if current is None or current.create_revision > expected:
            return WriteResult(True, refused.revision, None)  # our version is gone, which is what was asked
        return refused  # replaced, not deleted: ours did not happen
    if current is not None and current.value == value and current.mod_revision != expected:
        return WriteResult(True, current.mod_revision, None)
    if current is not None and current.mod_revision <= seen_before:
        return refused  # older than our first attempt
    raise OutcomeUnknown("the key was changed again while the connection was lost")


class _EtcdWatch:
    """One stream with one watch on it."""

    def __init__(self, call: Call, messages: Any) -> None:
        self._call = call
        self._pb = messages

    async def created(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                response = await self._response()
        except TimeoutError as error:
            self._call.cancel()
            raise StoreUnavailable("the watch was not answered") from error
        if not response.created:
            raise StoreUnavailable("the watch was not created")

    async def next(self) -> WatchBatch:
        events: list[StoreEvent] = []
        while True:
            response = await self._response()
            for event in response.events:
                kv = event.kv
                found = KeyValue(kv.key, kv.value, kv.create_revision, kv.mod_revision)
                events.append(StoreEvent(found, event.type == 1))
            if response.fragment:
                continue
            if events:  # the header may run ahead of what has been sent: only the events' own revisions count
                return WatchBatch(events, events[-1].kv.mod_revision)
            if not response.created:
                return WatchBatch((), response.header.revision)

    async def _response(self) -> Any:
        try:
            response = self._pb.WatchResponse.FromString(await self._call.read())
        except RpcError as error:
            raise _failure(error) from error
        if response.canceled:
            if response.compact_revision:
                raise Compacted(response.compact_revision)
            raise StoreUnavailable(f"the watch was cancelled: {response.cancel_reason}")
        return response

    async def request_progress(self) -> None:
        request = self._pb.WatchRequest(progress_request=self._pb.WatchProgressRequest())
        with contextlib.suppress(RpcError):  # whoever reads the stream learns it too, and reconnects
            self._call.send(request.SerializeToString())

    async def close(self) -> None:
        self._call.cancel()


def _key_value(kv: pb.KeyValue) -> KeyValue:
    return KeyValue(kv.key, kv.value, kv.create_revision, kv.mod_revision)


def _failure(error: RpcError) -> StoreError:
    """etcd's error as one of ours."""
    code, details = error.code, error.details
    if code == http2.OUT_OF_RANGE:
        return FutureRevision(details) if "future" in details else Compacted(0)
    if code == http2.INVALID_ARGUMENT and "too large" in details:
        return TooLargeValue(details)
    if code == http2.RESOURCE_EXHAUSTED and "larger than max" in details:
        return TooLargeValue(details)
    if code in (
        http2.INVALID_ARGUMENT,
        http2.UNIMPLEMENTED,
        http2.RESOURCE_EXHAUSTED,  # no space left, or overloaded: refused, not in doubt
        http2.UNAUTHENTICATED,
        http2.PERMISSION_DENIED,
        http2.NOT_FOUND,
    ):
        return StoreError(f"etcd refused the request: {details}")
    return StoreUnavailable(details)
