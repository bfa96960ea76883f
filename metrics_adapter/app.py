"""The metrics-adapter process: flags, assembly, health."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path

from aggregated import serving
from client.client import Client, client_from_args
from client.rest import RestClient
from machinery import component
from machinery.component import ComponentContext
from machinery.log import kv
from machinery.tls import KeyPair
from metrics_adapter.config import Config, ConfigError, defaults, read
from metrics_adapter.handlers import NOT_LISTED, Handlers
from metrics_adapter.prometheus import Prometheus
from metrics_adapter.registry import Registry, Rules

NAME = "metrics-adapter"
RATE_WINDOW = 60


def parser() -> argparse.ArgumentParser:
    made = serving.parser(NAME, "Serves custom and external metrics from a Prometheus, behind aggregation.")
    made.add_argument("--rest-server", required=True, metavar="URL", help="the API server's REST door")
    made.add_argument("--prometheus-url", required=True, metavar="URL")
    made.add_argument("--config", type=Path, help="rules, in prometheus-adapter's form (default: see metrics_adapter)")
    made.add_argument("--metrics-relist-interval", type=float, default=30.0, metavar="SECONDS")
    made.add_argument(
        "--metrics-max-age",
        type=float,
        default=120.0,
        metavar="SECONDS",
        help="series without a sample for that long are no metrics; a list that old is not believed",
    )
    made.add_argument(
        "--sample-max-age", type=float, default=60.0, metavar="SECONDS", help="older samples are no answer (real time)"
    )
    made.add_argument(
        "--query-timeout", type=float, default=10.0, metavar="SECONDS", help="of one question to Prometheus (real time)"
    )
    return made


async def serve(context: ComponentContext, args: argparse.Namespace, config: Config) -> None:
    client = client_from_args(args, context.clock, field_manager=NAME)
    reader = RestClient(args.rest_server, KeyPair(args.ca, args.cert, args.key), user_agent=NAME)
    getter = RestClient(args.prometheus_url, None, user_agent=NAME)
    try:
        await context.until_stopped(_work(context, args, config, client, reader, getter))
    finally:
        await asyncio.gather(client.close(), reader.close(), getter.close())


async def _work(
    context: ComponentContext,
    args: argparse.Namespace,
    config: Config,
    client: Client,
    reader: RestClient,
    getter: RestClient,
) -> None:
    clock = context.clock
    prometheus = Prometheus(getter, timeout=args.query_timeout, max_age=args.sample_max_age)
    rules = Rules(args.config, config)
    registry = Registry(
        rules, prometheus, reader, clock, interval=args.metrics_relist_interval, max_age=args.metrics_max_age
    )
    door = serving.door(args, client, clock, lambda access: Handlers(registry, prometheus, reader, access))
    context.health.ready(NOT_LISTED, False)
    context.health.metric("metrics_adapter_relist_failures_total", lambda: float(registry.failures))
    context.health.metric("metrics_adapter_config_failures_total", lambda: float(rules.failures))
    context.health.metric("metrics_adapter_metrics", lambda: float(len(registry.listing().custom)))
    await serving.start(door, args.listen)
    context.log.info("Serving", extra=kv(address=args.listen, prometheus=args.prometheus_url))
    async with contextlib.AsyncExitStack() as ends:
        ends.push_async_callback(door.close)
        await registry.run(lambda fresh: context.health.ready(NOT_LISTED, fresh))


def main(argv: Sequence[str]) -> int:
    args = parser().parse_args(argv)
    if serving.refused(NAME, args):
        return 2
    try:
        config = read(args.config.read_bytes() if args.config else defaults(RATE_WINDOW))
    except (OSError, ConfigError) as error:
        print(f"{NAME}: --config: {error}", file=sys.stderr)
        return 2
    return component.run(NAME, args, lambda context: serve(context, args, config))
