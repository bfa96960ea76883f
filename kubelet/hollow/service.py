"""KubeletService for all hollow nodes at once: usage as simulated; logs and streams are refused, for there are none."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Any

from kubelet.hollow import simulation
from kubelet.hollow.pods import HollowPods
from kubelet.server.service import METRICS_NAMES, allowed
from machinery import grpc as transport
from machinery.errors import BadRequest, Forbidden
from proto.kubelet.v1 import kubelet_pb2 as pb

NODE_CPU, NODE_MEMORY = 50, 256 << 20
"""Millicores and bytes that an idle machine uses."""
REFUSAL = "this pod is on a hollow node: its containers are simulated and have no {}"


class HollowService:
    """The servicer of proto.kubelet.v1. Only the API server's client certificate may call."""

    def __init__(self, pods: HollowPods, *, secure: bool) -> None:
        self._pods = pods
        self._secure = secure
        self._counters: dict[tuple[str, str], tuple[int, int]] = {}  # (uid, container) → (ns of the sample, core ns)

    async def _refuse(self, context: Any, what: str) -> None:
        await self._check(context)
        await transport.abort(context, BadRequest(REFUSAL.format(what)))

    async def _check(self, context: Any, also: tuple[str, ...] = ()) -> None:
        if self._secure and not allowed(context.auth_context(), also):
            await transport.abort(context, Forbidden("only the API server may ask a kubelet"))

    async def GetLogs(self, request: pb.LogsRequest, context: Any) -> AsyncIterator[pb.LogsChunk]:
        await self._refuse(context, "logs")
        yield pb.LogsChunk()

    async def Exec(self, inputs: AsyncIterator[pb.StreamInput], context: Any) -> AsyncIterator[pb.StreamOutput]:
        await self._refuse(context, "processes")
        yield pb.StreamOutput()

    async def Attach(self, inputs: AsyncIterator[pb.StreamInput], context: Any) -> AsyncIterator[pb.StreamOutput]:
        await self._refuse(context, "processes")
        yield pb.StreamOutput()

    async def PortForward(
        self, inputs: AsyncIterator[pb.PortForwardData], context: Any
    ) -> AsyncIterator[pb.PortForwardData]:
        await self._refuse(context, "ports")
        yield pb.PortForwardData()

    async def GetStats(self, request: pb.StatsRequest, context: Any) -> pb.StatsSummary:
        await self._check(context, METRICS_NAMES)
        return self.summary(request.node, time.time_ns())

    def summary(self, node: str, now: int) -> pb.StatsSummary:
        """What the pods of a node use. Counters grow by what was used since they were last read."""
        found = pb.StatsSummary(node=node, usage=self._usage(("", node), NODE_CPU, NODE_MEMORY, now))
        for pod in self._pods.on_node(node):
            if pod.phase != "Running":
                self._forget(pod.metadata.uid, [each.name for each in pod.spec.containers])
                continue
            meta = pod.metadata
            entry = pb.PodUsage(namespace=meta.namespace, name=meta.name, uid=meta.uid)
            for container in pod.spec.containers:
                cpu, memory = simulation.usage(container, pod)
                usage = self._usage((meta.uid, container.name), cpu, memory, now)
                entry.containers.append(pb.ContainerUsage(name=container.name, usage=usage))
                for total in (entry.usage, found.usage):
                    _add(total, usage)
            found.pods.append(entry)
        return found

    def _usage(self, key: tuple[str, str], cpu: int, memory: int, now: int) -> pb.Usage:
        at, total = self._counters.get(key, (now, 0))
        total += max(0, now - at) * cpu // 1000
        self._counters[key] = (now, total)
        return pb.Usage(
            time_unix_nanos=now,
            cpu_usage_nanocores=cpu * 1_000_000,
            cpu_usage_core_nanoseconds=total,
            memory_working_set_bytes=memory,
            memory_usage_bytes=memory,
            memory_rss_bytes=memory,
        )

    def _forget(self, uid: str, containers: list[str]) -> None:
        for name in containers:
            self._counters.pop((uid, name), None)


def _add(total: pb.Usage, part: pb.Usage) -> None:
    total.time_unix_nanos = part.time_unix_nanos
    total.cpu_usage_nanocores += part.cpu_usage_nanocores
    total.cpu_usage_core_nanoseconds += part.cpu_usage_core_nanoseconds
    total.memory_working_set_bytes += part.memory_working_set_bytes
    total.memory_usage_bytes += part.memory_usage_bytes
    total.memory_rss_bytes += part.memory_rss_bytes
