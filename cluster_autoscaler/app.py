"""The cluster autoscaler's process: flags, assembly, leader election, health."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import random
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from client.client import Client, add_client_flags, client_from_args
from client.events import EventRecorder
from client.informer import Informers
from client.leases import LeaderElector
from cluster_autoscaler import choosing
from cluster_autoscaler.autoscaler import NAME, Autoscaler
from cluster_autoscaler.choosing import GrpcExpander
from cluster_autoscaler.options import EXPANDERS, GroupOptions, Options
from cluster_autoscaler.provider import GrpcProvider
from machinery import component
from machinery.component import ComponentContext
from machinery.decisions import DecisionServer
from machinery.tls import KeyPair

PROVIDER: Final = "externalgrpc"
_SECONDS: Final = {
    "scan-interval": "scan_interval",
    "scale-down-delay-after-add": "delay_after_add",
    "scale-down-delay-after-delete": "delay_after_delete",
    "scale-down-delay-after-failure": "delay_after_failure",
    "new-pod-scale-up-delay": "new_pod_scale_up_delay",
    "max-graceful-termination-sec": "max_graceful_termination",
    "max-pod-eviction-time": "max_pod_eviction_time",
    "node-delete-delay-after-taint": "node_delete_delay_after_taint",
    "unremovable-node-recheck-timeout": "unremovable_recheck",
    "initial-node-group-backoff-duration": "backoff_initial",
    "max-node-group-backoff-duration": "backoff_max",
    "node-group-backoff-reset-timeout": "backoff_reset",
    "max-total-unready-percentage": "max_total_unready_percentage",
}
_COUNTS: Final = {
    "max-nodes-per-scaleup": "max_nodes_per_scale_up",
    "max-nodes-total": "max_nodes_total",
    "max-scale-down-parallelism": "max_scale_down_parallelism",
    "max-drain-parallelism": "max_drain_parallelism",
    "max-bulk-soft-taint-count": "max_bulk_soft_taint_count",
    "scale-down-non-empty-candidates-count": "non_empty_candidates",
    "ok-total-unready-count": "ok_total_unready",
    "expendable-pods-priority-cutoff": "expendable_cutoff",
}
_SWITCHES: Final = {
    "scale-down-enabled": "scale_down_enabled",
    "scale-down-unready-enabled": "scale_down_unready_enabled",
    "skip-nodes-with-system-pods": "skip_system_pods",
    "skip-nodes-with-local-storage": "skip_local_storage",
    "skip-nodes-with-custom-controller-pods": "skip_custom_controllers",
    "daemonset-eviction-for-empty-nodes": "daemonset_eviction_empty",
    "daemonset-eviction-for-occupied-nodes": "daemonset_eviction_occupied",
    "ignore-mirror-pods-utilization": "ignore_mirror_pods_utilization",
    "balance-similar-node-groups": "balance_similar_node_groups",
    "cordon-node-before-terminating": "cordon_node_before_terminating",
}
_GROUP_SECONDS: Final = {
    "scale-down-utilization-threshold": "utilization_threshold",
    "scale-down-unneeded-time": "unneeded_time",
    "scale-down-unready-time": "unready_time",
    "max-node-provision-time": "max_node_provision_time",
    "max-node-startup-time": "max_node_startup_time",
}


def _bool(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"true or false, not {text!r}")
    return text.lower() == "true"


def _range(text: str) -> tuple[int, int]:
    low, _, high = text.partition(":")
    if not (low.isdigit() and high.isdigit() and int(low) <= int(high)):
        raise argparse.ArgumentTypeError(f"MIN:MAX, not {text!r}")
    return int(low), int(high)


def _expanders(text: str) -> tuple[str, ...]:
    wanted = tuple(each.strip() for each in text.split(",") if each.strip())
    unknown = [each for each in wanted if each not in EXPANDERS]
    if unknown or not wanted:
        raise argparse.ArgumentTypeError(f"of {', '.join(EXPANDERS)}, not {text!r}")
    return wanted


def parser() -> argparse.ArgumentParser:
    made = component.parser(NAME, "Fits the number of nodes to the pods that want to run.")
    add_client_flags(made)
    defaults = Options()
    made.add_argument("--cloud-provider", choices=[PROVIDER], default=PROVIDER)
    made.add_argument("--cloud-address", required=True, metavar="ADDRESS", help="the provider: HOST:PORT or unix:PATH")
    made.add_argument("--cloud-ca", type=Path, help="who signed the provider's certificate")
    made.add_argument("--cloud-cert", type=Path, help="our certificate for the provider")
    made.add_argument("--cloud-key", type=Path, help="its key")
    made.add_argument("--expander", type=_expanders, default=defaults.expanders, metavar="NAME,…")
    made.add_argument("--grpc-expander-url", default="", metavar="ADDRESS", help="of `grpc`: HOST:PORT or unix:PATH")
    made.add_argument("--grpc-expander-cert", type=Path, help="who signed the expander's certificate")
    made.add_argument("--cores-total", type=_range, default=defaults.cores_total, metavar="MIN:MAX")
    made.add_argument("--memory-total", type=_range, default=defaults.memory_total, metavar="MIN:MAX", help="GiB")
    made.add_argument("--ignore-daemonsets-utilization", type=_bool, default=False, metavar="BOOL")
    made.add_argument("--explain", default="", metavar="unix:PATH", help="where to answer why it decided as it did")
    made.add_argument("--leader-elect", action="store_true", help="work only while holding the Lease")
    for flags, kind in ((_SECONDS, float), (_COUNTS, int), (_SWITCHES, _bool)):
        for flag, field in flags.items():
            made.add_argument(f"--{flag}", type=kind, default=getattr(defaults, field), dest=field)
    for flag, field in _GROUP_SECONDS.items():
        made.add_argument(f"--{flag}", type=float, default=getattr(defaults.group, field), dest=field)
    return made


def options_from(args: argparse.Namespace) -> Options:
    group = GroupOptions(
        ignore_daemonsets_utilization=args.ignore_daemonsets_utilization,
        **{field: getattr(args, field) for field in _GROUP_SECONDS.values()},
    )
    fields = (*_SECONDS.values(), *_COUNTS.values(), *_SWITCHES.values())
    return Options(
        group=group,
        expanders=args.expander,
        cores_total=args.cores_total,
        memory_total=args.memory_total,
        **{field: getattr(args, field) for field in fields},
    )


async def serve(context: ComponentContext, args: argparse.Namespace) -> None:
    client = client_from_args(args, context.clock, field_manager=NAME)
    try:
        await context.until_stopped(_work(context, args, client))
    finally:
        await client.close()


async def _work(context: ComponentContext, args: argparse.Namespace, client: Client) -> None:
    clock = context.clock
    pair = KeyPair(args.cloud_ca, args.cloud_cert, args.cloud_key) if args.cloud_ca else None
    provider = GrpcProvider(args.cloud_address, pair)
    informers = Informers(client, clock)
    recorder = EventRecorder(client, clock, NAME)
    expander = GrpcExpander(args.grpc_expander_url, args.grpc_expander_cert) if args.grpc_expander_url else None
    options = options_from(args)
    autoscaler = Autoscaler(client, clock, informers, recorder, provider, options, random.Random(), expander)
    autoscaler.metrics.expose(context.health)
    context.health.ready("informers-synced", False)
    explainer = autoscaler.explainer
    kinds = {"node": explainer.node, "nodegroup": explainer.nodegroup, "scale-up": explainer.scale_up}

    async def synced() -> None:
        await informers.wait_synced()
        context.health.ready("informers-synced")
        context.log.info("Synced caches")

    async with contextlib.AsyncExitStack() as doors:
        doors.push_async_callback(provider.close)
        if expander is not None:
            doors.push_async_callback(expander.close)
        if args.explain:
            await doors.enter_async_context(DecisionServer(args.explain, kinds))
        async with asyncio.TaskGroup() as group:
            group.create_task(informers.run())
            group.create_task(recorder.run())
            group.create_task(synced())
            if args.leader_elect:
                identity = f"{socket.gethostname()}_{os.getpid()}"
                elector = LeaderElector(client, clock, "kube-system", NAME, identity)
                group.create_task(elector.run(autoscaler.run))
            else:
                group.create_task(autoscaler.run())


def main(argv: Sequence[str]) -> int:
    args = parser().parse_args(argv)
    parts = (args.cloud_ca, args.cloud_cert, args.cloud_key)
    if any(parts) and not all(parts):
        print(f"{NAME}: --cloud-ca, --cloud-cert and --cloud-key go together", file=sys.stderr)
        return 2
    if (choosing.GRPC in args.expander) != bool(args.grpc_expander_url):
        print(f"{NAME}: --expander={choosing.GRPC} and --grpc-expander-url go together", file=sys.stderr)
        return 2
    if args.grpc_expander_url and not args.grpc_expander_url.startswith("unix:") and not args.grpc_expander_cert:
        print(f"{NAME}: an expander on the network needs --grpc-expander-cert", file=sys.stderr)
        return 2
    return component.run(NAME, args, lambda context: serve(context, args))
