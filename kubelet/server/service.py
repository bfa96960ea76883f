"""KubeletService: what the API server asks of this node on behalf of users.

Thin: finds the pod, lets `logs`, `streams` and `stats` do the work, turns errors into Statuses. Only the API server's
client certificate (or a member of system:masters) may call.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from functools import lru_cache, partial
from typing import Any

from kubelet.cri import Cri, CriError
from kubelet.node_pods import NodePods
from kubelet.pod.config import NodeFacts
from kubelet.pod.worker import PodWorker
from kubelet.server import selection, streams
from kubelet.server.logs import LogOptions, read_log
from kubelet.server.stats import Usages
from machinery import grpc as transport
from machinery.clock import Clock
from machinery.errors import BadRequest, Forbidden, InternalError, NotFound, StatusError
from machinery.meta import parse_time
from proto.cri.v1 import cri_pb2 as cri
from proto.kubelet.v1 import kubelet_pb2 as pb

ALLOWED_NAMES = ("kube-apiserver-kubelet-client",)
METRICS_NAMES = ("system:serviceaccount:kube-system:metrics-server",)
"""Who may read usage besides, as the role `system:metrics-server` says (`nodes/metrics`)."""
ALLOWED_GROUP = "system:masters"


def allowed(auth: dict[str, Any], also: tuple[str, ...] = ()) -> bool:
    """Whether a peer may ask anything, by gRPC's auth context of the call: whole names only, never parts of them.

    `also`: further names that may ask what is asked now.
    """
    names = [_text(name) for name in auth.get("x509_common_name") or ()]
    if any(name in ALLOWED_NAMES or name in also for name in names):
        return True
    return any(ALLOWED_GROUP in _organizations(_text(pem)) for pem in auth.get("x509_pem_cert") or ())


@lru_cache(maxsize=64)
def _organizations(pem: str) -> tuple[str, ...]:
    """The groups that a certificate names; gRPC has verified it."""
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    try:
        subject = x509.load_pem_x509_certificate(pem.encode()).subject
    except ValueError:
        return ()
    return tuple(str(part.value) for part in subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME))


def _text(value: bytes | str) -> str:
    return value if isinstance(value, str) else value.decode("utf-8", "replace")


class KubeletService:
    """The servicer of proto.kubelet.v1."""

    def __init__(
        self, runtime: Cri, clock: Clock, node: NodeFacts, pods: NodePods, usages: Usages, *, secure: bool
    ) -> None:
        self._secure = secure  # without certificates (tests) everybody is the API server
        self._cri = runtime
        self._clock = clock
        self._node = node
        self._pods = pods
        self._usages = usages

    async def _check(self, context: Any, also: tuple[str, ...] = ()) -> None:
        if self._secure and not allowed(context.auth_context(), also):
            await transport.abort(context, Forbidden("only the API server may ask a kubelet"))

    def _worker(self, namespace: str, pod: str) -> PodWorker:
        worker = self._pods.by_name(namespace, pod)
        if worker is None:
            raise NotFound.of("pods", pod)
        return worker

    async def GetLogs(self, request: pb.LogsRequest, context: Any) -> AsyncIterator[pb.LogsChunk]:
        await self._check(context)
        try:
            worker = self._worker(request.namespace, request.pod)
            record = selection.log_record(worker.machine, request.container, previous=request.previous)
            options = self._log_options(request)
            path = selection.log_path(worker.machine, record, self._node)
            slot = worker.machine.slots[record.name]

            def alive() -> bool:
                now = slot.current
                return not context.cancelled() and now is not None and now.id == record.id and now.running

            async for chunk in read_log(path, options, alive):
                yield pb.LogsChunk(data=chunk)
        except StatusError as error:
            await transport.abort(context, error)
        except OSError as error:
            await transport.abort(context, InternalError(f"cannot read log: {error}"))

    def _log_options(self, request: pb.LogsRequest) -> LogOptions:
        since = ""
        if request.since_time:
            try:
                since = parse_time(request.since_time).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
            except ValueError as error:
                raise BadRequest(str(error)) from error
        elif request.HasField("since_seconds"):
            earliest = self._clock.now() - timedelta(seconds=request.since_seconds)
            since = earliest.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        return LogOptions(
            follow=request.follow and not request.previous,
            timestamps=request.timestamps,
            tail=request.tail_lines if request.HasField("tail_lines") else None,
            limit=request.limit_bytes if request.HasField("limit_bytes") else None,
            since=since,
        )

    async def Exec(self, inputs: AsyncIterator[pb.StreamInput], context: Any) -> AsyncIterator[pb.StreamOutput]:
        await self._check(context)
        try:
            wish = await streams.first_of(inputs, "open")
            worker = self._worker(wish.namespace, wish.pod)
            container_id = selection.running_id(worker.machine, wish.container)
            request = cri.ExecRequest(
                container_id=container_id,
                cmd=wish.command,
                tty=wish.tty,
                stdin=wish.stdin,
                stdout=wish.stdout,
                stderr=wish.stderr and not wish.tty,
            )
            url = await self._cri.exec_url(request)
            async for output in streams.relay(url, inputs, partial(context.send_initial_metadata, ())):
                yield output
        except StatusError as error:
            await transport.abort(context, error)
        except CriError as error:
            await transport.abort(context, InternalError.of(error.message))

    async def Attach(self, inputs: AsyncIterator[pb.StreamInput], context: Any) -> AsyncIterator[pb.StreamOutput]:
        await self._check(context)
        try:
            wish = await streams.first_of(inputs, "open")
            worker = self._worker(wish.namespace, wish.pod)
            container_id = selection.running_id(worker.machine, wish.container, attach=True)
            request = cri.AttachRequest(
                container_id=container_id,
                tty=wish.tty,
                stdin=wish.stdin,
                stdout=wish.stdout,
                stderr=wish.stderr and not wish.tty,
            )
            url = await self._cri.attach_url(request)
            async for output in streams.relay(url, inputs, partial(context.send_initial_metadata, ())):
                yield output
        except StatusError as error:
            await transport.abort(context, error)
        except CriError as error:
            await transport.abort(context, InternalError.of(error.message))

    async def PortForward(
        self, inputs: AsyncIterator[pb.PortForwardData], context: Any
    ) -> AsyncIterator[pb.PortForwardData]:
        await self._check(context)
        try:
            wish = await streams.first_of(inputs, "open")
            worker = self._worker(wish.namespace, wish.pod)
            sandbox = worker.machine.sandbox
            if sandbox is None or not sandbox.ready:
                raise NotFound.of("pods", wish.pod)
            url = await self._cri.port_forward_url(sandbox.id, wish.port)
            async for output in streams.forward(url, wish.port, sandbox.id, inputs):
                yield output
        except StatusError as error:
            await transport.abort(context, error)
        except CriError as error:
            await transport.abort(context, InternalError.of(error.message))

    def _started(self) -> dict[str, int]:
        """Since when the containers run: by id, in nanoseconds of wall time."""
        slots = (slot for worker in self._pods.workers() for slot in worker.machine.slots.values())
        return {slot.current.id: slot.current.started_at for slot in slots if slot.current is not None}

    async def GetStats(self, request: pb.StatsRequest, context: Any) -> pb.StatsSummary:
        await self._check(context, METRICS_NAMES)
        try:
            stats = await self._cri.container_stats()
            return self._usages.summary(stats, self._started())
        except CriError as error:
            await transport.abort(context, InternalError.of(error.message))


async def serve(service: KubeletService, address: str, pair: Any, ready: asyncio.Event) -> None:
    """Listen until cancelled. Raises OSError when the address is taken."""
    from proto.kubelet.v1 import kubelet_pb2_grpc as stubs

    serving = transport.server()
    stubs.add_KubeletServiceServicer_to_server(service, serving)  # type: ignore[arg-type]
    transport.add_port(serving, address, pair)
    await serving.start()
    ready.set()
    try:
        await serving.wait_for_termination()
    finally:
        await serving.stop(0.2)
