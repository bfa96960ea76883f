"""Asking every kubelet what its node and pods use.

Owns: one channel per address (hollow nodes share one), the spreading of questions over a part of the period, their
bounds, and which answers are believed: a kubelet tells of its own pods only. Run by `metrics_server.app`.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from machinery.clock import Clock
from machinery.errors import StatusError
from machinery.log import kv
from machinery.tls import KeyPair
from metrics_server.cluster import Cluster, Node
from metrics_server.storage import Batch, Point, Storage
from proto.kubelet.v1 import kubelet_pb2 as pb

if TYPE_CHECKING:
    import grpc.aio

log = logging.getLogger("metrics-server")

PERIOD = 15.0  # cluster seconds between scrapes
TIMEOUT = 10.0  # cluster seconds for one kubelet
MIN_TIMEOUT = 1.0  # real seconds: kubelets are no faster in a cluster whose timers are
DELAY_PER_NODE, MAX_DELAY = 0.008, 4.0  # cluster seconds over which questions are spread
AT_ONCE = 64


class Kubelets:
    """The gRPC side: who is asked how."""

    def __init__(self, pair: KeyPair | None, timeout: float) -> None:
        """`timeout`: real seconds."""
        self._pair = pair
        self.timeout = timeout
        self._channels: dict[str, grpc.aio.Channel] = {}

    async def ask(self, address: str, node: str) -> pb.StatsSummary:
        """The stats of a node. Raises StatusError."""
        import grpc

        from machinery.grpc import channel, status_of
        from proto.kubelet.v1 import kubelet_pb2_grpc

        found = self._channels.get(address)
        if found is None:
            found = self._channels[address] = channel(address, self._pair)
        stub: Any = kubelet_pb2_grpc.KubeletServiceStub(found)
        try:
            summary: pb.StatsSummary = await stub.GetStats(pb.StatsRequest(node=node), timeout=self.timeout)
            return summary
        except grpc.RpcError as error:
            raise status_of(error) from error  # type: ignore[arg-type]

    async def keep_only(self, addresses: Iterable[str]) -> None:
        """Close channels to machines that are gone."""
        wanted = set(addresses)
        gone = [self._channels.pop(address) for address in self._channels.keys() - wanted]
        await asyncio.gather(*(each.close() for each in gone))

    async def close(self) -> None:
        await self.keep_only(())


class Scraper:
    """One round each period."""

    def __init__(self, cluster: Cluster, storage: Storage, kubelets: Kubelets, clock: Clock) -> None:
        self._cluster = cluster
        self._storage = storage
        self._kubelets = kubelets
        self._clock = clock
        self.rounds = 0
        self.failures = 0
        self.last_seconds = 0.0

    async def run(self, stored: Callable[[], None]) -> None:
        """Until cancelled; `stored` is called after each round."""
        while True:
            began = self._clock.monotonic()
            self._storage.store(await self.scrape())
            self.rounds += 1
            self.last_seconds = self._clock.monotonic() - began
            stored()
            await self._clock.sleep(max(0.0, PERIOD - self.last_seconds))

    async def scrape(self) -> Batch:
        """Ask everybody; who does not answer in time is not in the batch."""
        nodes = [node for node in self._cluster.nodes.lister.list() if node.kubelet]
        await self._kubelets.keep_only(node.kubelet for node in nodes)
        spread = min(DELAY_PER_NODE * len(nodes), MAX_DELAY)
        limit = asyncio.Semaphore(AT_ONCE)
        batch = Batch({}, {})
        async with asyncio.TaskGroup() as group:
            for node in nodes:
                group.create_task(self._collect(node, random.uniform(0, spread), limit, batch))
        return batch

    async def _collect(self, node: Node, delay: float, limit: asyncio.Semaphore, batch: Batch) -> None:
        await self._clock.sleep(delay)
        name = node.metadata.name
        async with limit:
            try:
                summary = await self._kubelets.ask(node.kubelet, name)
            except StatusError as error:
                self.failures += 1
                if node.is_ready:  # of others that is to be expected
                    log.warning("Could not scrape a node", extra=kv(node=name, error=error.message))
                return
        self._take(name, summary, batch)

    def _take(self, name: str, summary: pb.StatsSummary, batch: Batch) -> None:
        if summary.HasField("usage") and summary.usage.time_unix_nanos:
            batch.nodes[name] = _point(summary.usage)
        for entry in summary.pods:
            pod = self._cluster.pod(entry.namespace, entry.name)
            if pod is None or pod.spec.nodeName != name:
                continue
            points = {each.name: _point(each.usage) for each in entry.containers if each.usage.time_unix_nanos}
            if points:
                batch.pods[entry.namespace, entry.name] = points


def _point(found: pb.Usage) -> Point:
    return Point(
        found.time_unix_nanos,
        found.cpu_usage_core_nanoseconds,
        found.memory_working_set_bytes,
        found.start_time_unix_nanos,
    )
