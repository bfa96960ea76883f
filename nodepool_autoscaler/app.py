"""The process of the node pool autoscaler: flags, assembly, leader election, health."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import socket
from collections.abc import Sequence
from typing import Final

from api.models import core_v1
from client.client import Client, add_client_flags, client_from_args
from client.events import EventRecorder
from client.informer import EventHandler, Informers
from client.leases import LeaderElector
from machinery import component
from machinery.clock import Clock
from machinery.component import ComponentContext
from machinery.decisions import DecisionServer
from nodepool_autoscaler import metrics
from nodepool_autoscaler.catalog import Catalog
from nodepool_autoscaler.cluster import Cluster
from nodepool_autoscaler.disruption.controller import Disruption, Options
from nodepool_autoscaler.explain import Explainer
from nodepool_autoscaler.garbage import GarbageCollector
from nodepool_autoscaler.hands import Hands
from nodepool_autoscaler.lifecycle import Lifecycle
from nodepool_autoscaler.provider import CloudProvider, Provider
from nodepool_autoscaler.provisioner import Provisioner
from nodepool_autoscaler.status import ClassStatus, PoolStatus
from nodepool_autoscaler.termination import Termination
from scheduler.framework import node_facts

NAME: Final = "nodepool-autoscaler"
SOURCE: Final = "karpenter"
"""Whom events name as their source, as upstream does."""
CATALOG_EVERY: Final = 60.0


class Autoscaler:
    """All parts over one set of caches."""

    def __init__(
        self, client: Client, clock: Clock, informers: Informers, provider: Provider, options: Options | None = None
    ) -> None:
        self._clock = clock
        self.events = EventRecorder(client, clock, SOURCE)
        self.catalog = Catalog(provider, clock)
        self.cluster = Cluster(informers, self.catalog, clock)
        self.hands = Hands(client, self.cluster, self.events, clock)
        self.provisioner = Provisioner(self.cluster, self.hands, self.events, clock)
        self.lifecycle = Lifecycle(client, self.cluster, provider, self.events, clock)
        self.termination = Termination(client, self.cluster, provider, self.events, clock)
        self.garbage = GarbageCollector(client, self.cluster, provider, self.events, clock)
        self.pools = PoolStatus(client, self.cluster, clock)
        self.classes = ClassStatus(client, self.cluster, clock)
        self.disruption = Disruption(self.cluster, self.hands, clock, options)
        self.explainer = Explainer(self.cluster, self.provisioner, self.disruption.memory)
        self.cluster.marked = lambda: self.disruption.queue.marked
        self.cluster.on_waiting = self.provisioner.batcher.trigger
        self.cluster.on_pod_event = self.disruption.upkeep.pod_event
        self.lifecycle.told = self.pools.launched
        self._wake_disruption()

    def _wake_disruption(self) -> None:
        """It looks at claims when something of theirs has changed, rather than often."""
        wake = self.disruption.upkeep.wake

        def node_changed(old: core_v1.Node, new: core_v1.Node) -> None:
            if node_facts.taints(old) != node_facts.taints(new):  # heartbeats are no news
                wake()

        self.cluster.claims.add_handler(EventHandler(lambda _: wake(), lambda _, new: wake(), lambda _: None))
        self.cluster.pools.add_handler(EventHandler(lambda _: wake(), lambda _, new: wake(), lambda _: None))
        self.cluster.nodes.add_handler(EventHandler(lambda _: wake(), node_changed, lambda _: None))

    async def run(self) -> None:
        """Until cancelled; the caches run elsewhere."""
        for informer in self.cluster.informers():
            await informer.wait_synced()
        await self.catalog.refresh()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._keep_catalog())
            group.create_task(self.provisioner.run())
            group.create_task(self.lifecycle.controller.run())
            group.create_task(self.termination.controller.run())
            group.create_task(self.pools.controller.run())
            group.create_task(self.classes.controller.run())
            group.create_task(self.garbage.run())
            group.create_task(self.disruption.run())

    async def _keep_catalog(self) -> None:
        while True:
            await self._clock.sleep(CATALOG_EVERY)
            await self.catalog.refresh()


def parser() -> argparse.ArgumentParser:
    made = component.parser(NAME, "Launches the cheapest machines for pods that find no room, by NodePools.")
    add_client_flags(made)
    made.add_argument("--cloud-address", required=True, metavar="unix:PATH", help="the cloud's MachineService")
    made.add_argument("--explain", default="", metavar="unix:PATH", help="where to answer why it decided as it did")
    made.add_argument("--leader-elect", action="store_true", help="work only while holding the Lease")
    made.add_argument("--spot-to-spot", action="store_true", help="consolidate spot machines into cheaper spot ones")
    return made


async def serve(context: ComponentContext, args: argparse.Namespace) -> None:
    client = client_from_args(args, context.clock, field_manager=SOURCE)
    try:
        await context.until_stopped(_work(context, args, client))
    finally:
        await client.close()


async def _work(context: ComponentContext, args: argparse.Namespace, client: Client) -> None:
    clock = context.clock
    provider = CloudProvider(args.cloud_address)
    informers = Informers(client, clock)
    made = Autoscaler(client, clock, informers, provider, Options(spot_to_spot=args.spot_to_spot))
    metrics.expose(context.health, made.cluster, made.provisioner, made.lifecycle)
    made.disruption.metrics.expose(context.health.metric)
    context.health.ready("informers-synced", False)
    explainer = made.explainer
    kinds = {
        "nodeclaim": explainer.nodeclaim,
        "nodepool": explainer.nodepool,
        "node": explainer.node,
        "scale-up": explainer.scale_up,
    }

    async def synced() -> None:
        for informer in made.cluster.informers():
            await informer.wait_synced()
        context.health.ready("informers-synced")
        context.log.info("Synced caches")

    async with contextlib.AsyncExitStack() as doors:
        doors.push_async_callback(provider.close)
        if args.explain:
            await doors.enter_async_context(DecisionServer(args.explain, kinds))
        async with asyncio.TaskGroup() as group:
            group.create_task(informers.run())
            group.create_task(made.events.run())
            group.create_task(synced())
            if args.leader_elect:
                identity = f"{socket.gethostname()}_{os.getpid()}"
                elector = LeaderElector(client, clock, "kube-system", NAME, identity)
                group.create_task(elector.run(made.run))
            else:
                group.create_task(made.run())


def main(argv: Sequence[str]) -> int:
    args = parser().parse_args(argv)
    return component.run(NAME, args, lambda context: serve(context, args))
