"""The process of hollow nodes: flags and wiring."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from client.client import add_client_flags, client_from_args
from client.informer import Informers
from kubelet.hollow.fleet import Fleet, FleetSettings
from kubelet.hollow.pods import HollowPods
from kubelet.hollow.roster import Roster
from kubelet.hollow.service import HollowService
from kubelet.node.status import parse_labels, parse_taints
from kubelet.server.service import serve
from machinery import component, quantity
from machinery.component import ComponentContext
from machinery.log import kv
from machinery.tls import KeyPair


def build_parser() -> argparse.ArgumentParser:
    """All flags."""
    parser = component.parser("hollow", "Plays many nodes on which nothing runs.")
    add_client_flags(parser)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--count", type=int, help="how many nodes; more than that are removed")
    which.add_argument("--roster", type=Path, metavar="FILE", help="JSON list of nodes, followed while it changes")
    parser.add_argument("--prefix", default="hollow", help="nodes are called PREFIX-1, PREFIX-2, …")
    parser.add_argument("--listen", default="", metavar="HOST:PORT", help="KubeletService of all of them (mTLS)")
    parser.add_argument("--cpu", default="4", help="declared capacity of each")
    parser.add_argument("--memory", default="8Gi", help="declared capacity of each")
    parser.add_argument("--max-pods", type=int, default=110)
    parser.add_argument("--zones", default="", metavar="ZONE,…", help="given to the nodes in turn")
    parser.add_argument("--labels", default="", metavar="K=V,…")
    parser.add_argument("--taints", default="", metavar="K=V:EFFECT,…")
    parser.add_argument("--pod-start", type=float, default=0.2, help="cluster seconds from bound to Running")
    parser.add_argument("--no-pods", action="store_true", help="only keep the nodes alive: pods stay as they are bound")
    return parser


def settings_from(args: argparse.Namespace) -> FleetSettings | Roster:
    """Checked flags. Raises ValueError."""
    host, _, port = args.listen.rpartition(":")
    if args.roster is not None:
        return Roster(args.roster, host or "127.0.0.1", int(port) if port.isdigit() else 10350)
    if args.count < 0:
        raise ValueError("--count must not be negative")
    for text in (args.cpu, args.memory):
        if quantity.parse(text) <= 0:
            raise ValueError(f"capacity {text!r} must be positive")
    return FleetSettings(
        count=args.count,
        prefix=args.prefix,
        cpu=args.cpu,
        memory=args.memory,
        max_pods=args.max_pods,
        zones=tuple(filter(None, args.zones.split(","))),
        labels=parse_labels(args.labels),
        taints=parse_taints(args.taints),
        address=host or "127.0.0.1",
        port=int(port) if port.isdigit() else 10350,
    )


async def run(ctx: ComponentContext, args: argparse.Namespace, settings: FleetSettings | Roster) -> None:
    """The component's main."""
    client = client_from_args(args, ctx.clock, field_manager="kubelet")
    informers = Informers(client, ctx.clock)
    fleet = Fleet(client, informers, ctx.clock, settings)
    pods = None if args.no_pods else HollowPods(client, informers, ctx.clock, fleet, start_seconds=args.pod_start)
    ctx.log.info("Started hollow nodes", extra=kv(count=len(settings.names()), listen=args.listen))
    ctx.health.ready("nodes", False)

    async def readiness() -> None:
        await fleet.ready.wait()
        ctx.health.ready("nodes")

    async def work() -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(informers.run())
            tasks.create_task(fleet.run())
            tasks.create_task(readiness())
            if pods is not None:
                tasks.create_task(pods.run())
                if args.listen:
                    pair = KeyPair(args.ca, args.cert, args.key) if args.ca else None
                    service = HollowService(pods, secure=pair is not None)
                    tasks.create_task(serve(cast("Any", service), args.listen, pair, asyncio.Event()))

    try:
        await ctx.until_stopped(work())
    finally:
        await client.close()


def main(argv: Sequence[str]) -> int:
    """Entry point of the process."""
    parser = build_parser()
    args = parser.parse_args(argv)
    try:
        settings = settings_from(args)
    except ValueError as error:
        parser.error(str(error))
    return component.run("hollow", args, lambda ctx: run(ctx, args, settings))
