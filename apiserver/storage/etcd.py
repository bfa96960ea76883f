"""The store on etcd v3, over its own gRPC API.

Owns the connection, the translation of etcd's errors, and what becomes of a write whose connection broke: every write
is a compare-and-swap, so it is sent again, and if the first one had landed after all, the key shows our value. What
cannot be told apart is reported as OutcomeUnknown, never as success. Reads wait out a restart of etcd, bounded by
`timeout`. These bounds are real seconds: they belong to a disk and a process, not to the simulated cluster's clock.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from apiserver.storage.interface import (
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
from machinery.tls import KeyPair

if TYPE_CHECKING:
    import grpc.aio

    from proto.etcd.v1 import etcd_pb2 as pb

TIMEOUT = 10.0
RETRY_FIRST, RETRY_MOST = 0.02, 0.5
NOT_A_KEY = b"\0"
"""Reading it costs nothing and its answer carries the current revision."""


class EtcdStore:
    """One etcd (cluster) behind one channel. Connects with the first call; needs a running loop."""

    def __init__(self, target: str, pair: KeyPair | None = None, *, timeout: float = TIMEOUT) -> None:
        self._target = target
        self._pair = pair
        self._timeout = timeout
        self._channel: grpc.aio.Channel | None = None
        self._methods: dict[str, Callable[..., Any]] = {}
        self._seen = 0
        self.on_write: OnWrite | None = None

    # -- connection ---------------------------------------------------------------------------------------------------

    def _connect(self) -> None:
        from machinery.grpc import channel  # loads grpc: only where a connection is really made
        from proto.etcd.v1 import etcd_pb2

        self._pb = etcd_pb2
        opened = self._channel = channel(self._target, self._pair)
        for name, response in (
            ("Range", etcd_pb2.RangeResponse),
            ("Txn", etcd_pb2.TxnResponse),
            ("Compact", etcd_pb2.CompactionResponse),
        ):
            self._methods[name] = opened.unary_unary(
                f"/etcdserverpb.KV/{name}",
                request_serializer=lambda request: request.SerializeToString(),
                response_deserializer=response.FromString,
            )
        self._methods["Watch"] = opened.stream_stream(
            "/etcdserverpb.Watch/Watch",
            request_serializer=lambda request: request.SerializeToString(),
            response_deserializer=etcd_pb2.WatchResponse.FromString,
        )

    async def close(self) -> None:
        opened, self._channel = self._channel, None
        self._methods.clear()
        if opened is not None:
            await opened.close()

    def _method(self, name: str) -> Callable[..., Any]:
        if self._channel is None:
            self._connect()
        return self._methods[name]

    def _connected(self) -> bool:
        import grpc

        return self._channel is not None and self._channel.get_state() is grpc.ChannelConnectivity.READY

    # -- reading ------------------------------------------------------------------------------------------------------

    async def get(self, key: bytes) -> tuple[KeyValue | None, int]:
        call = self._method("Range")
        response = await self._read(call, self._pb.RangeRequest(key=key))
        return (_key_value(response.kvs[0]) if response.kvs else None), response.header.revision

    async def range(self, start: bytes, end: bytes, *, limit: int = 0, revision: int = 0) -> Page:
        call = self._method("Range")
        request = self._pb.RangeRequest(key=start, range_end=end, limit=limit, revision=revision)
        response = await self._read(call, request)
        return Page([_key_value(kv) for kv in response.kvs], response.header.revision, response.count, response.more)

    async def current_revision(self) -> int:
        call = self._method("Range")
        response = await self._read(call, self._pb.RangeRequest(key=NOT_A_KEY, count_only=True))
        return int(response.header.revision)

    async def compact(self, revision: int) -> None:
        call = self._method("Compact")
        try:
            await self._read(call, self._pb.CompactionRequest(revision=revision))
        except Compacted:
            return

    async def _read(self, call: Callable[..., Any], request: Any) -> Any:
        """Send until answered; requests without an effect may be repeated freely."""
        import grpc

        loop = asyncio.get_running_loop()
        deadline, delay = loop.time() + self._timeout, RETRY_FIRST
        while True:
            try:
                response = await call(request, timeout=max(deadline - loop.time(), 0.001), wait_for_ready=True)
            except grpc.aio.AioRpcError as error:
                failure = _failure(error)
                if not isinstance(failure, StoreUnavailable) or loop.time() + delay >= deadline:
                    raise failure from error
                await asyncio.sleep(delay)
                delay = min(delay * 2, RETRY_MOST)
            else:
                self._seen = max(self._seen, response.header.revision)
                return response

    # -- writing ------------------------------------------------------------------------------------------------------

    async def create(self, key: bytes, value: bytes) -> WriteResult:
        return await self._write(key, value, 0)

    async def replace(self, key: bytes, value: bytes, expected: int) -> WriteResult:
        return await self._write(key, value, expected)

    async def delete(self, key: bytes, expected: int) -> WriteResult:
        return await self._write(key, None, expected)

    async def _write(self, key: bytes, value: bytes | None, expected: int) -> WriteResult:
        import grpc

        call = self._method("Txn")
        request = self._transaction(key, value, expected)
        loop = asyncio.get_running_loop()
        deadline, delay = loop.time() + self._timeout, RETRY_FIRST
        seen_before, in_doubt = self._seen, False
        while True:
            try:
                response = await call(request, timeout=max(deadline - loop.time(), 0.001), wait_for_ready=True)
            except grpc.aio.AioRpcError as error:
                failure = _failure(error)
                if not isinstance(failure, StoreUnavailable):
                    raise failure from error
                late = error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
                # Calls wait for a connection: one that ran out of time without ever having had one was not sent.
                in_doubt = in_doubt or not late or self._connected()
                if late or loop.time() + delay >= deadline:
                    raise (OutcomeUnknown(str(failure)) if in_doubt else failure) from error
                await asyncio.sleep(delay)
                delay = min(delay * 2, RETRY_MOST)
                continue
            revision = response.header.revision
            self._seen = max(self._seen, revision)
            if response.succeeded:
                if self.on_write is not None:
                    self.on_write(revision, key, value, expected)
                return WriteResult(True, revision, None)
            kvs = response.responses[0].response_range.kvs
            current = _key_value(kvs[0]) if kvs else None
            result = WriteResult(False, revision, current)
            return settle(result, value, expected, seen_before) if in_doubt else result

    def _transaction(self, key: bytes, value: bytes | None, expected: int) -> pb.TxnRequest:
        messages = self._pb
        if value is None:
            success = messages.RequestOp(request_delete_range=messages.DeleteRangeRequest(key=key))
        else:
            success = messages.RequestOp(request_put=messages.PutRequest(key=key, value=value))
        target, equal = messages.Compare.MOD, messages.Compare.EQUAL
        unchanged = messages.Compare(target=target, result=equal, key=key, mod_revision=expected)
        read = messages.RequestOp(request_range=messages.RangeRequest(key=key))
        request: pb.TxnRequest = messages.TxnRequest(compare=[unchanged], success=[success], failure=[read])
        return request

    # -- watching -----------------------------------------------------------------------------------------------------

    async def watch(self, prefix: bytes, after: int) -> StoreWatch:
        call = self._method("Watch")(wait_for_ready=True)
        create = self._pb.WatchCreateRequest(
            key=prefix, range_end=prefix_end(prefix), start_revision=after + 1 if after else 0, fragment=True
        )
        watch = _EtcdWatch(call, self._pb)
        await watch.send(self._pb.WatchRequest(create_request=create), self._timeout)
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

    def __init__(self, call: Any, messages: Any) -> None:
        self._call = call
        self._pb = messages

    async def send(self, request: Any, seconds: float) -> None:
        import grpc

        try:
            async with asyncio.timeout(seconds):
                await self._call.write(request)
        except grpc.aio.AioRpcError as error:
            raise _failure(error) from error
        except (TimeoutError, asyncio.InvalidStateError) as error:
            self._call.cancel()
            raise StoreUnavailable("the watch could not be sent") from error

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
        import grpc
        import grpc.aio

        try:
            response = await self._call.read()
        except grpc.aio.AioRpcError as error:
            raise _failure(error) from error
        except asyncio.CancelledError:
            # grpc reports a cancelled call like a cancelled task; only the second may end the reader.
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            raise StoreUnavailable("the watch was closed") from None
        if response is grpc.aio.EOF:
            raise StoreUnavailable("the watch stream ended")
        if response.canceled:
            if response.compact_revision:
                raise Compacted(response.compact_revision)
            raise StoreUnavailable(f"the watch was cancelled: {response.cancel_reason}")
        return response

    async def request_progress(self) -> None:
        try:
            await self.send(self._pb.WatchRequest(progress_request=self._pb.WatchProgressRequest()), TIMEOUT)
        except StoreUnavailable:
            return  # whoever reads the stream learns it too, and reconnects

    async def close(self) -> None:
        self._call.cancel()


def _key_value(kv: pb.KeyValue) -> KeyValue:
    return KeyValue(kv.key, kv.value, kv.create_revision, kv.mod_revision)


def _failure(error: grpc.aio.AioRpcError) -> StoreError:
    """etcd's error as one of ours."""
    import grpc

    code, details = error.code(), error.details() or ""
    if code is grpc.StatusCode.OUT_OF_RANGE:
        return FutureRevision(details) if "future" in details else Compacted(0)
    if code is grpc.StatusCode.INVALID_ARGUMENT and "too large" in details:
        return TooLargeValue(details)
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and "larger than max" in details:
        return TooLargeValue(details)
    if code in (
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,  # no space left, or overloaded: refused, not in doubt
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.PERMISSION_DENIED,
    ):
        return StoreError(f"etcd refused the request: {details}")
    return StoreUnavailable(f"{code.name}: {details}")
