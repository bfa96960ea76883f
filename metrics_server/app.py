"""The metrics-server process: flags, assembly, health."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
from collections.abc import Sequence

from aggregated import serving
from client.client import Client, client_from_args
from client.informer import Informers
from machinery import component
from machinery.component import ComponentContext
from machinery.log import kv
from machinery.tls import KeyPair
from metrics_server.cluster import Cluster
from metrics_server.handlers import Handlers
from metrics_server.scraper import MIN_TIMEOUT, PERIOD, TIMEOUT, Kubelets, Scraper
from metrics_server.storage import Storage

NAME = "metrics-server"


def parser() -> argparse.ArgumentParser:
    return serving.parser(NAME, "Serves what nodes and pods use, behind the API server's aggregation.")


async def serve(context: ComponentContext, args: argparse.Namespace) -> None:
    client = client_from_args(args, context.clock, field_manager=NAME)
    try:
        await context.until_stopped(_work(context, args, client))
    finally:
        await client.close()


async def _work(context: ComponentContext, args: argparse.Namespace, client: Client) -> None:
    clock = context.clock
    informers = Informers(client, clock)
    cluster, storage = Cluster(informers), Storage(clock.real(PERIOD))
    timeout = max(MIN_TIMEOUT, clock.real(TIMEOUT))
    kubelets = Kubelets(KeyPair(args.ca, args.cert, args.key) if args.ca else None, timeout)
    scraper = Scraper(cluster, storage, kubelets, clock)
    door = serving.door(args, client, clock, lambda access: Handlers(cluster, storage, access, clock))
    for check in ("informers-synced", "metrics-scraped"):
        context.health.ready(check, False)
    context.health.metric("metrics_server_kubelet_request_failed_total", lambda: float(scraper.failures))
    context.health.metric("metrics_server_manager_tick_duration_seconds", lambda: scraper.last_seconds)

    async def work() -> None:
        await informers.wait_synced()
        context.health.ready("informers-synced")
        await scraper.run(lambda: context.health.ready("metrics-scraped"))

    await serving.start(door, args.listen)
    context.log.info("Serving", extra=kv(address=args.listen))
    async with contextlib.AsyncExitStack() as ends:
        ends.push_async_callback(kubelets.close)
        ends.push_async_callback(door.close)
        async with asyncio.TaskGroup() as group:
            group.create_task(informers.run())
            group.create_task(work())


def main(argv: Sequence[str]) -> int:
    args = parser().parse_args(argv)
    if serving.refused(NAME, args):
        return 2
    return component.run(NAME, args, lambda context: serve(context, args))
