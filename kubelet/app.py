"""The kubelet process: flags, wiring, order of start. Owns nothing else."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from api.models import core_v1
from client.client import Client, add_client_flags, client_from_args
from client.events import EventRecorder
from client.informer import Informer, Informers
from kubelet import admission, dns
from kubelet.cri import Cri, CriError
from kubelet.eviction.monitor import EvictionMonitor
from kubelet.eviction.plan import DEFAULT_HARD, Threshold, parse_thresholds
from kubelet.image_gc import ImageCollector
from kubelet.images import Images
from kubelet.log_rotation import LogRotation
from kubelet.node.machine_facts import disk_bytes
from kubelet.node.reporter import UPDATE_SECONDS, NodeReporter
from kubelet.node.status import NodeSettings, parse_labels, parse_taints
from kubelet.node_pods import NodePods
from kubelet.plugins.csi_node import CsiNodeKeeper
from kubelet.plugins.drivers import TYPE as CSI_PLUGIN
from kubelet.plugins.drivers import CsiDrivers
from kubelet.plugins.limits import Limits
from kubelet.plugins.watcher import PluginWatcher
from kubelet.pod.cgroups import PodCgroups
from kubelet.pod.config import NodeFacts
from kubelet.pod.remover import PodRemover
from kubelet.pod.services import Services
from kubelet.server.service import KubeletService, serve
from kubelet.server.stats import Usages
from kubelet.status.writer import StatusWriter
from kubelet.volumes.csi.attachment import Attachments
from kubelet.volumes.csi.devices import Devices
from kubelet.volumes.csi.expansion import Expansion
from kubelet.volumes.csi.folders import Folders
from kubelet.volumes.csi.pod_csi import PodCsi
from kubelet.volumes.objects import ObjectReader
from kubelet.volumes.pod_volumes import PodVolumes
from machinery import component, quantity
from machinery.clock import Clock
from machinery.component import ComponentContext
from machinery.log import kv
from machinery.tls import KeyPair

RUNTIME_RETRY = 0.1  # real seconds


def build_parser() -> argparse.ArgumentParser:
    """All flags."""
    parser = component.parser("kubelet", "Runs the pods bound to one node.")
    add_client_flags(parser)
    parser.add_argument("--node-name", required=True)
    parser.add_argument("--node-ip", required=True)
    parser.add_argument("--cri", required=True, metavar="unix:PATH", help="the runtime's CRI socket")
    parser.add_argument("--root", required=True, type=Path, help="state of this kubelet: pod volumes")
    parser.add_argument("--log-dir", required=True, type=Path, help="container logs")
    parser.add_argument("--listen", required=True, metavar="HOST:PORT", help="KubeletService (mTLS)")
    parser.add_argument("--cgroup-root", default="", help="the machine's cgroup, relative to the controllers' mounts")
    parser.add_argument("--cpu", default="2", help="declared capacity")
    parser.add_argument("--memory", default="2Gi", help="declared capacity")
    parser.add_argument("--max-pods", type=int, default=110)
    parser.add_argument("--labels", default="", metavar="K=V,…", help="labels to register with")
    parser.add_argument("--taints", default="", metavar="K=V:EFFECT,…", help="taints to register with")
    parser.add_argument("--resolv-conf", type=Path, default=Path("/etc/resolv.conf"), help="the machine's own resolver")
    parser.add_argument("--cluster-dns", default="", metavar="IP,…")
    parser.add_argument("--cluster-domain", default="cluster.local")
    parser.add_argument("--pod-cidr", default="", help="pod network where no controller assigns one")
    parser.add_argument("--eviction-hard", default=DEFAULT_HARD, metavar="SIGNAL<AMOUNT,…")
    parser.add_argument("--image-gc-high-threshold", type=int, default=85, help="percent of the disk; 100: never")
    parser.add_argument("--image-gc-low-threshold", type=int, default=80, help="percent of the disk")
    parser.add_argument("--node-status-period", type=float, default=UPDATE_SECONDS, help="cluster seconds")
    return parser


def settings_from(args: argparse.Namespace) -> tuple[NodeSettings, NodeFacts]:
    """Checked flags. Raises ValueError."""
    port = args.listen.rpartition(":")[2]
    settings = NodeSettings(
        name=args.node_name,
        ip=args.node_ip,
        port=int(port) if port.isdigit() else 10250,
        cpu=args.cpu,
        memory=args.memory,
        max_pods=args.max_pods,
        ephemeral_storage=disk_bytes(args.root),
        labels=parse_labels(args.labels),
        taints=parse_taints(args.taints),
    )
    try:
        resolv_conf = args.resolv_conf.read_text(encoding="utf-8", errors="replace")
    except OSError:
        resolv_conf = ""
    facts = NodeFacts(
        name=args.node_name,
        ip=args.node_ip,
        root=args.root.absolute(),
        log_dir=args.log_dir.absolute(),
        cgroup_root=args.cgroup_root,
        cpu_milli=quantity.milli(args.cpu),
        memory=quantity.value(args.memory),
        cluster_dns=tuple(filter(None, args.cluster_dns.split(","))),
        cluster_domain=args.cluster_domain,
        host_resolver=dns.parse_resolv_conf(resolv_conf),
    )
    return settings, facts


class Kubelet:
    """All parts of one kubelet, wired; `run` until cancelled. Tests build it with their own client and clock."""

    def __init__(
        self, client: Client, runtime: Cri, clock: Clock, settings: NodeSettings, facts: NodeFacts, **options: Any
    ) -> None:
        self._client = client
        self._cri = runtime
        self._clock = clock
        self._settings = settings
        self._facts = facts
        self._listen: str = options.get("listen", "")
        self._pair: KeyPair | None = options.get("pair")
        self._eviction: tuple[Threshold, ...] = options.get("eviction", parse_thresholds(DEFAULT_HARD))
        self._image_gc: tuple[int, int] = options.get("image_gc", (85, 80))
        self._informers = Informers(client, clock)
        self._pod_informer: Informer[core_v1.Pod] = self._informers.informer(
            core_v1.Pod, field_selector=f"spec.nodeName={settings.name}"
        )
        self._service_informer: Informer[core_v1.Service] = self._informers.informer(core_v1.Service)
        node_informer: Informer[core_v1.Node] = self._informers.informer(
            core_v1.Node, field_selector=f"metadata.name={settings.name}"
        )
        self.recorder = EventRecorder(client, clock, "kubelet", settings.name)
        self.reporter = NodeReporter(
            client,
            runtime,
            clock,
            settings,
            node_informer,
            self.recorder,
            update_seconds=options.get("update_seconds", UPDATE_SECONDS),
            pod_cidr=options.get("pod_cidr", ""),
        )
        self.serving = asyncio.Event()
        self.pods: NodePods | None = None

    def _warn(self, reason: str, message: str) -> None:
        self.reporter.tell(reason, message, "Warning")

    async def run(self) -> None:
        """Start everything that can start at once, side by side."""
        facts, client, clock = self._facts, self._client, self._clock
        facts.root.mkdir(parents=True, exist_ok=True, mode=0o750)
        facts.log_dir.mkdir(parents=True, exist_ok=True, mode=0o755)
        reader = ObjectReader(client, clock)
        drivers = CsiDrivers(keeper := CsiNodeKeeper(client, clock, facts.name))
        try:
            await self._run(facts, client, clock, reader, drivers, keeper)
        finally:
            if self.pods is not None:
                self.pods.close()
            await drivers.close()

    def _csi(self, reader: ObjectReader, drivers: CsiDrivers, tasks: asyncio.TaskGroup) -> tuple[PodCsi, Devices]:
        """What drives CSI volumes; it says what is in use here before the node's first report."""
        client, clock, node, reporter = self._client, self._clock, self._facts.name, self.reporter
        attachments = Attachments(client, clock, node, reporter.look)
        reporter.volumes_in_use, reporter.told_volumes = attachments.in_use, attachments.written
        reporter.seen_node = attachments.look
        folders = Folders(self._facts.root)
        devices = Devices(folders, drivers, attachments, clock, node, tasks)
        devices.recall()
        expansion = Expansion(client, reader, clock, drivers, node, self.recorder.event)
        limits = Limits(drivers, reader.csi_driver, clock)
        tasks.create_task(limits.run())
        return PodCsi(reader, clock, drivers, devices, attachments, limits, folders, expansion, node), devices

    async def _run(
        self,
        facts: NodeFacts,
        client: Client,
        clock: Clock,
        reader: ObjectReader,
        drivers: CsiDrivers,
        keeper: CsiNodeKeeper,
    ) -> None:
        cgroups = PodCgroups(facts.cgroup_root)
        async with asyncio.TaskGroup() as tasks:
            csi, devices = self._csi(reader, drivers, tasks)
            volumes = PodVolumes(facts, reader, lambda: self.reporter.labels, csi)
            tasks.create_task(self._informers.run())
            tasks.create_task(self.recorder.run())
            tasks.create_task(self.reporter.run())
            tasks.create_task(keeper.ensure(self.reporter.registered))
            tasks.create_task(PluginWatcher(facts.root / "plugins_registry", {CSI_PLUGIN: drivers}, clock).run())
            tasks.create_task(csi.run())
            shared = Services(
                client=client,
                cri=self._cri,
                clock=clock,
                recorder=self.recorder,
                node=facts,
                volumes=volumes,
                reader=reader,
                images=Images(self._cri, tasks),
                statuses=StatusWriter(client, clock, tasks),
                remover=PodRemover(self._cri, volumes, clock, facts.log_dir, cgroups),
                cgroups=cgroups,
                tasks=tasks,
                services=self._service_informer.lister,
                services_synced=self._service_informer.wait_synced,
                scheme=await self._runtime_name(),
            )
            room = admission.allocatable(self._settings.cpu, self._settings.memory, self._settings.max_pods)
            images = ImageCollector(self._cri, clock, facts.root, *self._image_gc, self._warn)
            monitor = EvictionMonitor(
                self._cri,
                clock,
                cgroups,
                facts.root,
                facts.memory,
                self._eviction,
                lambda: self.pods.workers() if self.pods is not None else [],
                self.reporter.look,
                self._warn,
                images.reclaim,
            )
            self.reporter.pressures = lambda: monitor.pressures
            pods = self.pods = NodePods(
                shared, self._pod_informer, lambda: self.reporter.labels, room, lambda: monitor.pressures
            )
            pods.adopted = devices.give_back_unused
            tasks.create_task(pods.run())
            tasks.create_task(images.run())
            tasks.create_task(monitor.run())
            tasks.create_task(LogRotation(self._cri, clock, pods.workers).run())
            if self._listen:
                service = KubeletService(
                    self._cri, clock, facts, pods, Usages(facts.name, cgroups), secure=self._pair is not None
                )
                tasks.create_task(serve(service, self._listen, self._pair, self.serving))

    async def _runtime_name(self) -> str:
        while True:
            try:
                return (await self._cri.version()).runtime_name or "nanokube"
            except CriError:
                await asyncio.sleep(RUNTIME_RETRY)


async def run(ctx: ComponentContext, args: argparse.Namespace, settings: NodeSettings, facts: NodeFacts) -> None:
    """The component's main."""
    client = client_from_args(args, ctx.clock, field_manager="kubelet")
    runtime = Cri(args.cri)
    pair = KeyPair(args.ca, args.cert, args.key) if args.ca else None
    kubelet = Kubelet(
        client,
        runtime,
        ctx.clock,
        settings,
        facts,
        listen=args.listen,
        pair=pair,
        update_seconds=args.node_status_period,
        pod_cidr=args.pod_cidr,
        eviction=parse_thresholds(args.eviction_hard),
        image_gc=(args.image_gc_high_threshold, args.image_gc_low_threshold),
    )
    ctx.log.info("Started kubelet", extra=kv(node=settings.name, listen=args.listen))

    async def readiness() -> None:
        await kubelet.reporter.ready.wait()
        ctx.health.ready("node")

    ctx.health.ready("node", False)
    try:
        async with asyncio.TaskGroup() as tasks:
            watcher = tasks.create_task(readiness())
            await ctx.until_stopped(kubelet.run())
            watcher.cancel()
    finally:
        await runtime.close()
        await client.close()


def main(argv: Sequence[str]) -> int:
    """Entry point of the process."""
    parser = build_parser()
    args = parser.parse_args(argv)
    try:
        settings, facts = settings_from(args)
        parse_thresholds(args.eviction_hard)
    except ValueError as error:
        parser.error(str(error))
    return component.run("kubelet", args, lambda ctx: run(ctx, args, settings, facts))
