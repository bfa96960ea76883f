"""The scheduler process: flags, profiles, health, leader election."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import random
import socket
import sys
from collections.abc import Sequence
from functools import partial
from typing import Any

from api.models import core_v1
from client.client import Client, add_client_flags, client_from_args
from client.events import EventRecorder
from client.informer import Informers
from client.leases import LeaderElector
from machinery import component
from machinery.component import ComponentContext
from scheduler import configuration
from scheduler.configuration import Configuration, ConfigurationError, PluginConfig, Profile
from scheduler.framework.framework import Framework
from scheduler.framework.pod_info import DEFAULT_SCHEDULER, PodInfo
from scheduler.framework.scoring import Strategy
from scheduler.queue import Place
from scheduler.scheduler import Scheduler

NAME = "kube-scheduler"


def parser() -> argparse.ArgumentParser:
    made = component.parser(NAME, "Assigns pods to nodes.")
    add_client_flags(made)
    made.add_argument("--scheduler-name", default=DEFAULT_SCHEDULER, help="the spec.schedulerName to answer for")
    made.add_argument(
        "--scoring-strategy",
        choices=[strategy.value for strategy in Strategy],
        default=Strategy.LEAST_ALLOCATED.value,
        help="prefer the emptier or the fuller of the nodes that fit",
    )
    made.add_argument(
        "--config", metavar="FILE", help="a KubeSchedulerConfiguration; then the two flags above count for nothing"
    )
    made.add_argument("--seed", type=int, help="of the random choice among equally good nodes (default: random)")
    made.add_argument("--explain", metavar="unix:PATH", help="where to answer why pods are where they are")
    made.add_argument("--leader-elect", action="store_true", help="work only while holding the Lease")
    return made


def configured(args: argparse.Namespace) -> Configuration:
    """The configuration file, or one line of it as the flags describe it. Raises ConfigurationError."""
    if args.config:
        return configuration.read(args.config)
    profile = Profile(schedulerName=args.scheduler_name)
    profile.pluginConfig = [PluginConfig("NodeResourcesFit", {"scoringStrategy": {"type": args.scoring_strategy}})]
    return Configuration(profiles=[profile])


def profiles(args: argparse.Namespace, client: Client) -> dict[str, Framework]:
    """Profiles by scheduler name. Raises ConfigurationError."""

    async def create_binding(pod: PodInfo, binding: dict[str, Any]) -> object:
        return await client.create_subresource(core_v1.Pod, pod.name, pod.namespace, "binding", binding)

    return configuration.frameworks(configured(args), create_binding, random.Random(args.seed))


async def serve(context: ComponentContext, args: argparse.Namespace) -> None:
    clock = context.clock
    client = client_from_args(args, clock, field_manager=NAME)
    try:
        await context.until_stopped(_work(context, args, client))
    finally:
        await client.close()


async def _work(context: ComponentContext, args: argparse.Namespace, client: Client) -> None:
    clock = context.clock
    informers = Informers(client, clock)
    frameworks = profiles(args, client)
    recorder = EventRecorder(client, clock, next(iter(frameworks)))
    settings = configured(args)
    backoff = (settings.podInitialBackoffSeconds, settings.podMaxBackoffSeconds)
    extenders = configuration.extenders(settings)
    scheduler = Scheduler(client, clock, informers, recorder, frameworks, backoff=backoff, extenders=extenders)
    context.health.ready("informers-synced", False)
    _expose(context, scheduler)

    async def synced() -> None:
        await informers.wait_synced()
        context.health.ready("informers-synced")
        context.log.info("Synced caches")

    async with contextlib.AsyncExitStack() as doors, asyncio.TaskGroup() as group:
        if args.explain:
            from scheduler.explain import ExplainServer

            await doors.enter_async_context(ExplainServer(scheduler, args.explain))
        group.create_task(informers.run())
        group.create_task(recorder.run())
        group.create_task(synced())
        if args.leader_elect:
            identity = f"{socket.gethostname()}_{os.getpid()}"
            elector = LeaderElector(client, clock, "kube-system", NAME, identity)
            group.create_task(elector.run(scheduler.run))
        else:
            group.create_task(scheduler.run())


def _expose(context: ComponentContext, scheduler: Scheduler) -> None:
    health = context.health
    for place in (Place.ACTIVE, Place.BACKOFF, Place.WAITING, Place.GATED):
        health.metric(f'scheduler_pending_pods{{queue="{place.value}"}}', partial(scheduler.queue.count, place))
    health.metric('scheduler_schedule_attempts_total{result="scheduled"}', lambda: float(scheduler.scheduled))
    health.metric('scheduler_schedule_attempts_total{result="unschedulable"}', lambda: float(scheduler.unschedulable))
    health.metric('scheduler_schedule_attempts_total{result="error"}', lambda: float(scheduler.errors))
    health.metric('scheduler_scheduler_cache_size{type="nodes"}', lambda: float(scheduler.snapshot.node_count))
    health.metric('scheduler_scheduler_cache_size{type="pods"}', lambda: float(scheduler.snapshot.pod_count))


def main(argv: Sequence[str]) -> int:
    args = parser().parse_args(argv)
    try:
        # A mistake in the file ends the process before it opens anything.
        configuration.frameworks(configured(args), None, random.Random(0))
        configuration.extenders(configured(args))
    except ConfigurationError as error:
        print(f"{NAME}: --config: {error}", file=sys.stderr)
        return 1
    return component.run(NAME, args, lambda context: serve(context, args))
