"""The metrics-server process: flags, assembly, health."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path

from client.client import Client, add_client_flags, client_from_args
from client.informer import Informers
from machinery import component
from machinery.component import ComponentContext
from machinery.log import kv
from machinery.tls import KeyPair
from metrics_server.access import Access, ApiReviews, Authorities
from metrics_server.cluster import Cluster
from metrics_server.door import Door, tls_context
from metrics_server.handlers import Handlers
from metrics_server.scraper import MIN_TIMEOUT, PERIOD, TIMEOUT, Kubelets, Scraper
from metrics_server.storage import Storage

NAME = "metrics-server"


def parser() -> argparse.ArgumentParser:
    made = component.parser(NAME, "Serves what nodes and pods use, behind the API server's aggregation.")
    add_client_flags(made)
    made.add_argument("--listen", required=True, metavar="HOST:PORT", help="HTTPS address")
    made.add_argument("--tls-cert", type=Path, required=True, help="serving certificate")
    made.add_argument("--tls-key", type=Path, required=True, help="its key")
    made.add_argument("--requestheader-client-ca", type=Path, required=True, help="CA of who may speak for users")
    made.add_argument("--requestheader-allowed-names", default="front-proxy-client", metavar="NAME,…")
    return made


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
    names = tuple(name for name in args.requestheader_allowed_names.split(",") if name)
    authorities = Authorities(args.ca.read_text(), args.requestheader_client_ca.read_text(), names)
    authorities.front_proxy_subjects  # noqa: B018  wrong ones must end the process, not each request
    access = Access(authorities, ApiReviews(client), clock)
    handlers = Handlers(cluster, storage, access, clock)
    door = Door(
        handlers,
        tls_context(KeyPair(args.ca, args.tls_cert, args.tls_key), (authorities.client, authorities.front_proxy)),
    )
    for check in ("informers-synced", "metrics-scraped"):
        context.health.ready(check, False)
    context.health.metric("metrics_server_kubelet_request_failed_total", lambda: float(scraper.failures))
    context.health.metric("metrics_server_manager_tick_duration_seconds", lambda: scraper.last_seconds)

    async def work() -> None:
        await informers.wait_synced()
        context.health.ready("informers-synced")
        await scraper.run(lambda: context.health.ready("metrics-scraped"))

    host, _, port = args.listen.rpartition(":")
    await door.start(host.strip("[]"), int(port))
    context.log.info("Serving", extra=kv(address=args.listen))
    async with contextlib.AsyncExitStack() as ends:
        ends.push_async_callback(kubelets.close)
        ends.push_async_callback(door.close)
        async with asyncio.TaskGroup() as group:
            group.create_task(informers.run())
            group.create_task(work())


def main(argv: Sequence[str]) -> int:
    args = parser().parse_args(argv)
    if args.ca is None or not args.listen.rpartition(":")[2].isdigit():
        print(f"{NAME}: --ca, --cert, --key and --listen HOST:PORT are required", file=sys.stderr)
        return 2
    return component.run(NAME, args, lambda context: serve(context, args))
