"""A kubelet in this process, between a real API server on the memory store and the fake runtime."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest

from api.models import core_v1, meta_v1
from client.client import Client
from kubelet.app import Kubelet, build_parser, settings_from
from kubelet.cri import Cri
from linux import mount
from machinery.clock import RealClock
from machinery.errors import NotFound
from proto.kubelet.v1 import kubelet_pb2_grpc
from runtime.fake import FakeContainer, FakeRuntime
from tests.harness.apiserver import RunningApiServer, running_apiserver

T = TypeVar("T")
DEADLINE = 60.0
NODE = "node-1"
FOREVER = ["sh", "-c", "trap 'exit 0' TERM; sleep 1000"]


async def until(look: Callable[[], Awaitable[T | None]], what: str) -> T:
    """The first true answer of `look` within the deadline."""
    last: Any = None
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(DEADLINE):
            while True:
                last = await look()
                if last:
                    return last  # type: ignore[no-any-return]  # T by the signature of look
                await asyncio.sleep(0.01)
    raise AssertionError(f"{what} did not happen in {DEADLINE:g} s; last seen: {last!r}")


@dataclass
class Site:
    """The node under test and everything around it."""

    server: RunningApiServer
    client: Client
    runtime: FakeRuntime
    folder: Path
    socket: str
    clock: RealClock
    kubelet: Kubelet = field(init=False)
    task: asyncio.Task[None] = field(init=False)
    failures: list[BaseException] = field(default_factory=list)

    async def start(self, *, serve: bool = False) -> None:
        """Start a kubelet (again)."""
        args = build_parser().parse_args(
            [
                "--api-server=unused",
                f"--node-name={NODE}",
                "--node-ip=127.0.0.1",
                f"--cri={self.socket}",
                f"--root={self.folder / 'kubelet'}",
                f"--log-dir={self.folder / 'logs'}",
                f"--listen=unix:{self.folder}/kubelet.sock",
                "--cluster-dns=10.96.0.10",
            ]
        )
        settings, facts = settings_from(args)
        pair = self.server.pki.client(f"system:node:{NODE}", "system:nodes")
        self.node_client = Client.connect(self.server.grpc_target, pair, field_manager="kubelet")
        self.cri = Cri(self.socket)
        options = {"listen": args.listen} if serve else {}
        self.kubelet = Kubelet(
            self.node_client, self.cri, self.clock, settings, facts, pod_cidr="10.88.0.0/24", **options
        )
        self.task = asyncio.create_task(self.kubelet.run())
        async with asyncio.timeout(DEADLINE):
            ready = asyncio.create_task(self.kubelet.reporter.ready.wait())
            await asyncio.wait({ready, self.task}, return_when=asyncio.FIRST_COMPLETED)
        if self.task.done():
            ready.cancel()
            self.task.result()

    async def stop(self) -> None:
        """Stop the kubelet as a kill would: its pods live on."""
        if self.task.done() and not self.task.cancelled():
            self.task.result()
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        await self.cri.close()
        await self.node_client.close()

    # ---- what a user does and sees ----

    async def create(self, name: str, *containers: dict[str, Any], **spec: Any) -> core_v1.Pod:
        """Create a pod that is bound to the node already."""
        meta = {"name": name, "namespace": "default", **spec.pop("metadata", {})}
        listed = [
            {"name": "main", "image": "busybox", "imagePullPolicy": "IfNotPresent", **each} for each in containers
        ]
        raw = {"metadata": meta, "spec": {"nodeName": NODE, "containers": listed, **spec}}
        return await self.client.create(msgspec.convert(raw, core_v1.Pod))

    async def pod(self, name: str, what: str, seen: Callable[[core_v1.Pod], Any]) -> core_v1.Pod:
        """The pod once `seen` holds."""

        async def look() -> core_v1.Pod | None:
            pod = await self.client.get(core_v1.Pod, name, "default")
            return pod if pod.status is not None and seen(pod) else None

        try:
            return await until(look, f"{name}: {what}")
        except AssertionError as error:
            pod = await self.client.get(core_v1.Pod, name, "default")
            raise AssertionError(f"{error}; status: {msgspec.json.encode(pod.status).decode()}") from None

    async def phase(self, name: str, phase: str) -> core_v1.Pod:
        return await self.pod(name, phase, lambda pod: (pod.status and pod.status.phase) == phase)

    async def waiting(self, name: str, reason: str) -> core_v1.ContainerStatus:
        """The main container's status once it waits with that reason."""

        def seen(pod: core_v1.Pod) -> bool:
            statuses = pod.status.containerStatuses if pod.status else None
            state = statuses[0].state if statuses else None
            return bool(state and state.waiting and state.waiting.reason == reason)

        return main(await self.pod(name, reason, seen))

    async def gone(self, name: str) -> None:
        async def look() -> bool:
            try:
                await self.client.get(core_v1.Pod, name, "default")
            except NotFound:
                return True
            return False

        await until(look, f"removal of {name}")

    async def events(self, name: str) -> list[tuple[str, str]]:
        """(reason, message) of the pod's events."""
        await self.kubelet.recorder.flush()
        found = (await self.client.list(core_v1.Event, "default")).items
        return [(event.reason or "", event.message or "") for event in found if event.involvedObject.name == name]

    def containers(self, pod: str) -> list[FakeContainer]:
        """The runtime's containers of a pod by attempt."""
        mine = [c for c in self.runtime.containers.values() if c.config.labels["io.kubernetes.pod.name"] == pod]
        return sorted(mine, key=lambda c: c.status.metadata.attempt)

    def stub(self) -> Any:
        """KubeletService of this node."""
        from machinery.grpc import channel

        self.channel = channel(f"unix:{self.folder}/kubelet.sock")
        return kubelet_pb2_grpc.KubeletServiceStub(self.channel)


def main(pod: core_v1.Pod) -> core_v1.ContainerStatus:
    """The only container's status."""
    assert pod.status is not None and pod.status.containerStatuses
    return pod.status.containerStatuses[0]


def condition(pod: core_v1.Pod, kind: str) -> tuple[str, str]:
    """(status, reason) of a condition."""
    assert pod.status is not None
    found = next(each for each in pod.status.conditions or () if each.type == kind)
    return found.status, found.reason or ""


@contextlib.asynccontextmanager
async def site_at(folder: Path, scale: float) -> AsyncIterator[Site]:
    runtime = FakeRuntime()
    clock = RealClock(scale)
    async with running_apiserver() as server, runtime.serve(f"unix:{folder}/cri.sock") as socket:
        client = Client.connect(server.grpc_target, server.admin_tls)
        account = core_v1.ServiceAccount(
            metadata=meta_v1.ObjectMeta(name="default", namespace="default"),
            automountServiceAccountToken=False,  # nobody publishes the CA's config map here
        )
        await client.create(account)
        roots = meta_v1.ObjectMeta(name="kube-root-ca.crt", namespace="default")  # as the controller publishes it
        await client.create(core_v1.ConfigMap(metadata=roots, data={"ca.crt": "CA"}))
        site = Site(server, client, runtime, folder, socket, clock)
        await site.start(serve=True)
        try:
            yield site
        finally:
            await site.stop()
            await client.close()
            mount.unmount_below(str(folder))  # of pods that still lived


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    """A ready node in real time."""
    async with site_at(tmp_path, 1.0) as made:
        yield made


@pytest.fixture
async def fast_site(tmp_path: Path) -> AsyncIterator[Site]:
    """A ready node whose timers run a hundred times faster."""
    async with site_at(tmp_path, 100.0) as made:
        yield made
