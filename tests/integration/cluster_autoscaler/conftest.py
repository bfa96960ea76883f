"""A real API server, the autoscaler against a scripted cloud, and hands that play scheduler and kubelet."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from api.models import core_v1, meta_v1
from cli.autoscaling import objects
from client.client import Client
from client.events import EventRecorder
from client.informer import Informers
from cluster_autoscaler.autoscaler import NAME, Autoscaler
from cluster_autoscaler.options import Options
from cluster_autoscaler.provider import GrpcProvider
from machinery.clock import Clock, RealClock
from machinery.errors import AlreadyExists
from tests.harness.apiserver import running_apiserver
from tests.harness.provider import FakeCloud, FakeGroup
from tests.integration.cluster_autoscaler.site import SCALE, Process, Site

IDENTITY = "system:serviceaccount:kube-system:cluster-autoscaler"
GROUPS = ("system:serviceaccounts", "system:serviceaccounts:kube-system")
Run = Callable[[list[FakeGroup], Options], contextlib.AbstractAsyncContextManager[Site]]


@contextlib.asynccontextmanager
async def running_site(folder: Path, groups: list[FakeGroup], options: Options) -> AsyncIterator[Site]:
    """The autoscaler acts in its own name, with the rights that `up` gives it."""
    cloud = FakeCloud(groups)
    async with contextlib.AsyncExitStack() as ends:
        server = await ends.enter_async_context(running_apiserver())
        target = await ends.enter_async_context(cloud.serving(f"unix:{folder / 'cloud'}"))
        admin = Client.connect(server.grpc_target, server.admin_tls)
        ends.push_async_callback(admin.close)
        for made in (
            core_v1.Namespace(metadata=meta_v1.ObjectMeta(name="default")),
            core_v1.Namespace(metadata=meta_v1.ObjectMeta(name="kube-system")),
            core_v1.ServiceAccount(metadata=meta_v1.ObjectMeta(name="default", namespace="default")),
        ):
            with contextlib.suppress(AlreadyExists):
                await admin.create(made)
        rest = server.rest()
        for path, made_object in objects():
            answer = await rest.post(path, made_object)
            assert answer.status == 201, answer.body
        clock = RealClock(SCALE)
        pair = server.pki.client(IDENTITY, *GROUPS)
        flags = (f"--api-server={server.grpc_target}", f"--ca={pair.ca}", f"--cert={pair.cert}", f"--key={pair.key}")
        there = Site(
            admin,
            cloud,
            clock,
            lambda: process(Client.connect(server.grpc_target, pair), target, clock, options),
            (*flags, f"--cloud-address={target}", f"--time-scale={SCALE}"),
        )
        await there.start()
        try:
            yield there
            there.check()
        finally:
            await there.kill()


@contextlib.asynccontextmanager
async def process(client: Client, target: str, clock: Clock, options: Options) -> AsyncIterator[Process]:
    """What a process of the autoscaler holds. It ends as by a kill: nothing that it wrote is taken back."""
    informers = Informers(client, clock)
    recorder = EventRecorder(client, clock, NAME)
    provider = GrpcProvider(target)
    autoscaler = Autoscaler(client, clock, informers, recorder, provider, options, random.Random(1))
    tasks = [asyncio.ensure_future(work) for work in (informers.run(), recorder.run(), autoscaler.run())]
    try:
        yield Process(autoscaler, tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await provider.close()
        await client.close()


@pytest.fixture
def site(tmp_path: Path) -> Run:
    return lambda groups, options: running_site(tmp_path, groups, options)
