"""The kube-proxy process: flags and wiring."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Sequence

from client.client import add_client_flags, client_from_args
from client.informer import Informers
from kube_proxy import objects
from kube_proxy.dataplane import NftDataplane
from kube_proxy.health_checks import HealthChecks
from kube_proxy.routes import RouteReconciler
from kube_proxy.rules import TableConfig
from kube_proxy.services import BY_SERVICE, ServiceReconciler, by_service
from machinery import component
from machinery.component import ComponentContext


async def _serve(context: ComponentContext, args: argparse.Namespace) -> None:
    client = client_from_args(args, context.clock, field_manager="kube-proxy")
    health_checks = HealthChecks()
    try:
        informers = Informers(client, context.clock)
        config = TableConfig(
            args.table, args.cluster_cidr, args.service_cidr, args.underlay_cidr, host=not args.node_name
        )
        nodes = informers.informer(objects.NODES)
        services = ServiceReconciler(
            config,
            informers.informer(objects.SERVICES),
            informers.informer(objects.ENDPOINT_SLICES, indexers={BY_SERVICE: by_service}),
            nodes,
            NftDataplane(),
            context.clock,
            args.node_name,
            health_checks,
        )
        routes = RouteReconciler(nodes, context.clock, args.node_name)
        context.health.metric("kubeproxy_sync_proxy_rules_total", lambda: services.syncs)

        async def tell(check: str, synced: asyncio.Event) -> None:
            context.health.ready(check, False)
            await synced.wait()
            context.health.ready(check)

        async def work() -> None:
            async with asyncio.TaskGroup() as group:
                rules_stand, routes_stand = asyncio.Event(), asyncio.Event()
                group.create_task(tell("rules", rules_stand))
                group.create_task(tell("routes", routes_stand))
                group.create_task(informers.run())
                group.create_task(services.run(rules_stand))
                group.create_task(routes.run(routes_stand))

        await context.until_stopped(work())
    finally:
        await health_checks.close()
        await client.close()


def main(argv: Sequence[str]) -> int:
    """Run until stopped; returns the exit code. Rules and routes stay, so that traffic flows on without it."""
    parser = component.parser("kube-proxy", "Keeps Services and pod routes of this machine in the kernel.")
    add_client_flags(parser)
    parser.add_argument("--node-name", default="", help="the node this machine is; empty on the host")
    parser.add_argument("--cluster-cidr", required=True, help="network of all pods")
    parser.add_argument("--service-cidr", required=True, help="network of cluster IPs")
    parser.add_argument("--underlay-cidr", required=True, help="network of machines")
    parser.add_argument("--table", default="nanokube", help="name of the nftables table")
    args = parser.parse_args(argv)
    return component.run("kube-proxy", args, lambda context: _serve(context, args))
