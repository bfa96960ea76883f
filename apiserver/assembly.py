"""The parts of an API server put together.

Owns: construction in order, the tasks that run for the server's life, readiness, and the graceful stop. Never parses
flags (`app.py`). Called by the process and, in-process, by tests.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from api.resources import RESOURCES
from apiserver import discovery, metric_sources
from apiserver.admission.chain import install
from apiserver.aggregation.aggregator import Aggregator
from apiserver.aggregation.identity import FrontProxy
from apiserver.audit.auditor import Auditor
from apiserver.auth.authentication import Authenticator, load_static_tokens
from apiserver.auth.escalation import EscalationCheck
from apiserver.auth.feed import AuthorizerFeed
from apiserver.auth.gate import Gate
from apiserver.auth.node_authorizer import NodeAuthorizer
from apiserver.auth.node_graph import PodGraph
from apiserver.auth.policy import NODE_RULES, parse_rules
from apiserver.auth.rbac import RBACAuthorizer
from apiserver.auth.secret_tokens import LAST_USED, BootstrapTokens, LegacyTokens
from apiserver.auth.service_accounts import DEFAULT_ISSUER, ServiceAccountTokens
from apiserver.auth.token_request import TokenRequests
from apiserver.auth.user import SYSTEM_API_SERVER
from apiserver.auth.virtual import VirtualResources
from apiserver.bootstrap import Bootstrap, is_reachable
from apiserver.crd.catalog import Catalog
from apiserver.crd.serving import CustomResources
from apiserver.flowcontrol.control import FlowControl
from apiserver.flowcontrol.feed import FlowControlFeed
from apiserver.master_leases import LEASE_SECONDS, MasterLeases
from apiserver.metrics import RequestMetrics
from apiserver.registry.allocation_repair import AllocationRepair
from apiserver.registry.component_status import ComponentStatuses
from apiserver.registry.context import RequestContext
from apiserver.registry.questions import Questions
from apiserver.registry.store import Registry
from apiserver.registry.strategies.services import connect_allocators
from apiserver.rest.deadlines import REQUEST_TIMEOUT, Deadlines
from apiserver.rest.door import RestDoor
from apiserver.rest.limits import InFlight
from apiserver.rest.resources import Connect, ResourceHandlers
from apiserver.rest.server import RestServer, listen, tls_context
from apiserver.rest.system import Check, SystemHandlers
from apiserver.rest.watch import MIN_SECONDS, WatchStreams
from apiserver.streams.proxy import passes_on
from apiserver.streams.targets import Kubelets
from machinery.clock import Clock
from machinery.errors import NotFound, ServiceUnavailable, StatusError
from machinery.jwt import TokenKey
from machinery.log import kv
from machinery.tls import KeyPair

if TYPE_CHECKING:
    import grpc.aio

    from api.resources import Resource
    from apiserver.grpc.service import ResourceService
    from apiserver.storage.interface import Store

log = logging.getLogger("apiserver")

Key = tuple[str, str, str]  # group, resource, subresource

# Upstream's names of what a start has to finish; each tells of the step of ours that does it.
BOOTSTRAP_HOOKS = (
    "poststarthook/rbac/bootstrap-roles",
    "poststarthook/scheduling/bootstrap-system-priority-classes",
    "poststarthook/bootstrap-controller",
    "poststarthook/start-system-namespaces-controller",
    "poststarthook/apiservice-registration-controller",
)
CRD_HOOKS = ("poststarthook/start-apiextensions-informers", "poststarthook/crd-informer-synced")
STOP_GRACE = 5.0  # real seconds for requests under way


@dataclass(frozen=True)
class Settings:
    """What an API server is told."""

    etcd: str = ""  # "" = the memory store
    etcd_pair: KeyPair | None = None
    binds: tuple[str, ...] = ()
    grpc_binds: tuple[str, ...] = ()
    tls: KeyPair | None = None  # ca = the authority of client certificates
    token_file: Path | None = None
    service_range: str = "10.96.0.0/16"
    service_account_key: Path | None = None
    service_account_issuer: str = ""
    advertise: str = ""
    kubelet_pair: KeyPair | None = None
    components: Mapping[str, str] = field(default_factory=dict)  # name → Unix socket of its health endpoint
    proxy_pair: KeyPair | None = None  # towards aggregated servers; ca = the authority that signed it
    reuse_port: bool = False
    auditor: Auditor | None = None  # None = no audit log
    master_lease: float = LEASE_SECONDS  # real seconds after which a killed server is no endpoint any more
    request_timeout: float = REQUEST_TIMEOUT  # real seconds
    min_request_timeout: float = MIN_SECONDS  # cluster seconds; of watches that name none
    shutdown_delay: float = 0.0  # real seconds for which a stopping server serves on


class ApiServer:
    """One API server. `running()` starts it and stops it."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self.settings = settings
        self.clock = clock
        self.store = _store(settings)
        self.registry = Registry(self.store, clock, RESOURCES)
        statuses = self.registry.resource("", "v1", "componentstatuses")
        assert isinstance(statuses, ComponentStatuses)
        statuses.components = settings.components
        self.catalog = Catalog()
        self.customs = CustomResources(self.registry, self.catalog)
        front = FrontProxy(settings.proxy_pair, settings.tls.ca if settings.tls else None)
        self.aggregator = Aggregator(self.registry, self.catalog, front)
        self.metrics = RequestMetrics()
        self.in_flight = InFlight()
        self.flow = FlowControl()
        self.deadlines = Deadlines(settings.request_timeout)
        self.flow_feed = FlowControlFeed(self.registry, self.flow, clock)
        self.rbac = RBACAuthorizer()
        self.pods = PodGraph()
        self.feed = AuthorizerFeed(self.registry, self.rbac, self.pods)
        static = load_static_tokens(settings.token_file) if settings.token_file else {}
        self.accounts = self._accounts()
        legacy = None
        if self.accounts is not None:
            legacy = LegacyTokens(clock, self.accounts.key, self._read_object, self._note_token_use)
        bootstrap = BootstrapTokens(clock, self._read_object)
        authenticator = Authenticator(clock, static, self.accounts, bootstrap, legacy)
        self.gate = Gate(
            authenticator,
            (NodeAuthorizer(self.pods, parse_rules(NODE_RULES)), self.rbac),
        )
        self.gate.synced = False
        allocators = connect_allocators(self.registry, settings.service_range)
        services = self.registry.resource("", "v1", "services").cache
        self.allocations = AllocationRepair(self.store, services, allocators, clock)
        install(self, token_volumes=self.accounts is not None)
        self.registry.admission.append(EscalationCheck(self.gate, self.rbac))
        tokens = TokenRequests(clock, self.accounts, self._read_metadata) if self.accounts else None
        self.questions = Questions(self.registry.admission)
        self.virtual = VirtualResources(
            clock, self.gate, self.rbac, authenticator.agnostic, self.accounts, tokens, self._admit_question
        )
        self.streams = WatchStreams(clock, settings.min_request_timeout)
        self.kubelets = Kubelets(self.registry, settings.kubelet_pair)
        self._stopping = False
        self._bootstrapped = False
        self._masters: MasterLeases | None = None
        self._ready = asyncio.Event()
        self._rest: RestServer | None = None
        self._grpc: grpc.aio.Server | None = None
        self._service: ResourceService | None = None
        self.grpc_ports: list[int] = []
        self._connect_metrics()

    # Assembly.

    def _accounts(self) -> ServiceAccountTokens | None:
        if self.settings.service_account_key is None:
            return None
        key = TokenKey(self.settings.service_account_key)
        issuer = self.settings.service_account_issuer or DEFAULT_ISSUER
        return ServiceAccountTokens(self.clock, key, self._read_metadata, issuer)

    def _connect_metrics(self) -> None:
        metric_sources.connect(
            self.metrics,
            store=self.store,
            registry=self.registry,
            counted=self.in_flight,
            control=self.flow,
            streams=self.streams,
            auditor=self.settings.auditor,
            version=str(discovery.version()["gitVersion"]),
        )
        self.metrics.add(self.aggregator.figures)

    async def _admit_question(
        self,
        ctx: RequestContext,
        resource: Resource,
        namespace: str,
        name: str,
        body: dict[str, Any],
        subresource: str,
    ) -> None:
        if resource.storable:
            await self.registry.resource(*resource.key()).admit_question(ctx, namespace, name, body, subresource)
        else:
            await self.questions.admit(ctx, resource, namespace, name, body)

    async def _read_metadata(self, plural: str, namespace: str, name: str) -> Mapping[str, Any] | None:
        """An object's metadata without authorization; pods bring the two fields that bind tokens."""
        obj = await self._read_object(plural, namespace, name)
        if obj is None:
            return None
        meta: dict[str, Any] = obj["metadata"]
        if plural == "pods":
            spec = obj.get("spec") or {}
            meta = {**meta, "nodeName": spec.get("nodeName"), "serviceAccountName": spec.get("serviceAccountName")}
        return meta

    async def _read_object(self, plural: str, namespace: str, name: str) -> dict[str, Any] | None:
        """An object of the core group without authorization."""
        store = self.registry.resource("", "v1", plural)
        try:
            raw = await store.get(RequestContext(SYSTEM_API_SERVER), namespace, name)
        except NotFound:
            return None
        found: dict[str, Any] = msgspec.json.decode(raw)
        return found

    async def _note_token_use(self, namespace: str, name: str, day: str) -> None:
        """Label the Secret of a lasting token that is in use; what goes wrong is not the user's business."""
        store = self.registry.resource("", "v1", "secrets")
        patch = msgspec.json.encode({"metadata": {"labels": {LAST_USED: day}}})
        context = RequestContext(SYSTEM_API_SERVER, field_manager="kube-apiserver")
        try:
            await store.patch(context, namespace, name, "application/merge-patch+json", patch)
        except StatusError as error:
            log.warning(
                "Could not note the use of a token", extra=kv(secret=f"{namespace}/{name}", error=error.message)
            )

    def _checks(self) -> Mapping[str, Mapping[str, Check]]:
        alive: dict[str, Check] = {"ping": lambda: "", "log": lambda: ""}
        store: dict[str, Check] = {"etcd": lambda: "" if self.registry.feed.ready else "the store is not reached"}
        started: dict[str, Check] = {
            "informer-sync": lambda: "" if self.feed.synced else "roles are not read yet",
            **dict.fromkeys(BOOTSTRAP_HOOKS, lambda: "" if self._bootstrapped else "not finished"),
            **dict.fromkeys(CRD_HOOKS, lambda: "" if self.customs.synced else "definitions are not read yet"),
            "poststarthook/priority-and-fairness-config-consumer": (
                lambda: "" if self.flow_feed.synced else "priority levels are not read yet"
            ),
            "poststarthook/priority-and-fairness-config-producer": (
                lambda: "" if self.flow_feed.ready else "default priority levels are not there yet"
            ),
        }
        ending: dict[str, Check] = {"shutdown": lambda: "process is shutting down" if self._stopping else ""}
        return {
            "livez": {**alive, **store},
            "readyz": {**alive, **store, **started, **ending},
            "healthz": {**alive, **store, **started},
        }

    def _rest_door(self) -> RestDoor:
        connects, websockets = self._connects()
        resources = ResourceHandlers(self.registry, self.clock, self.streams, self.virtual, connects, websockets)
        system = SystemHandlers(self.metrics, self._checks(), self.accounts, self.catalog, self.aggregator.swaggers)
        return RestDoor(
            self.gate,
            resources,
            system,
            self.metrics,
            self.in_flight,
            self.aggregator,
            self.settings.auditor,
            self.flow,
            self.deadlines,
        )

    def _passes_on(self, url: bytes) -> bool:
        """Whether an upgrade is another server's: of an aggregated API, or behind a proxy."""
        return passes_on(url) or self.aggregator.claims(url)

    def _connects(self) -> tuple[dict[Key, Connect], dict[Key, Connect]]:
        from apiserver.streams.logs import LogStreams
        from apiserver.streams.port_forward import PortForwards
        from apiserver.streams.proxy import Proxies
        from apiserver.streams.remote import RemoteStreams

        remote = RemoteStreams(self.kubelets)
        connects: dict[Key, Connect] = {("", "pods", "log"): LogStreams(self.kubelets).serve}
        proxies = Proxies(self.registry, self.kubelets)
        for plural, serve in (("pods", proxies.pods), ("services", proxies.services), ("nodes", proxies.nodes)):
            connects[("", plural, "proxy")] = serve
        streams: dict[Key, Connect] = {
            ("", "pods", "exec"): remote.execute,
            ("", "pods", "attach"): remote.attach,
            ("", "pods", "portforward"): PortForwards(self.kubelets).serve,
        }
        return {**connects, **streams}, streams

    # Life.

    @property
    def rest_addresses(self) -> list[str]:
        return [f"{host}:{port}" for host, port in (self._rest.addresses if self._rest else ())]

    async def wait_ready(self) -> None:
        """Until the store is read, roles are known and the first objects exist."""
        await self._ready.wait()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[ApiServer]:
        """Serve inside the block. Raises OSError when an address is taken, and whatever the block raises, bare."""
        try:
            async with self._serving():
                yield self
        except BaseExceptionGroup as group:
            if len(group.exceptions) == 1:
                raise group.exceptions[0] from None
            raise

    @contextlib.asynccontextmanager
    async def _serving(self) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self.registry.run())]
            try:
                await self._start_doors()
                tasks.append(group.create_task(self._get_ready()))
                tasks.append(group.create_task(self.feed.run()))
                tasks.append(group.create_task(self.flow_feed.run()))
                tasks.append(group.create_task(self.deadlines.run()))
                tasks.append(group.create_task(self.customs.run()))
                tasks.append(group.create_task(self.aggregator.run()))
                tasks.append(group.create_task(self._repair()))
                yield
            finally:
                await self._stop_doors()
                for task in tasks:
                    task.cancel()
        await self.kubelets.close()
        await self.store.close()

    async def _repair(self) -> None:
        await self._ready.wait()
        await self.allocations.run()

    async def _get_ready(self) -> None:
        rest = self._rest
        assert rest is not None
        while True:
            try:
                await self.registry.wait_ready()  # bounded inside; the store may come up much later
                break
            except ServiceUnavailable:
                log.warning("Waiting for the store")
        port = rest.addresses[0][1]
        settings = self.settings
        bootstrap = Bootstrap(
            self.registry,
            service_range=settings.service_range,
            advertise=settings.advertise,
            port=port,
            front=self.aggregator.front,
            ca=settings.tls.ca if settings.tls else None,
        )
        await bootstrap.run()
        if is_reachable(settings.advertise):
            self._masters = MasterLeases(
                self.registry,
                self.store,
                settings.advertise,
                port,
                lease_seconds=settings.master_lease,
                renew_seconds=settings.master_lease * 2 / 3,
            )
            await self._masters.once()
        self._bootstrapped = True
        await self.feed.wait_synced()
        await self.customs.wait_synced()
        await self.aggregator.wait_synced()
        self.gate.synced = True
        self._ready.set()
        if self._masters is not None:
            await self._masters.run()

    async def _start_doors(self) -> None:
        settings = self.settings
        if settings.auditor is not None:
            settings.auditor.open()
        tls = tls_context(settings.tls.cert, settings.tls.key, settings.tls.ca) if settings.tls else None
        sockets = [listen(address, reuse_port=settings.reuse_port) for address in settings.binds]
        self._rest = RestServer(self._rest_door(), sockets, tls, self._passes_on)
        await self._rest.start()
        if settings.grpc_binds:
            from apiserver.grpc.service import ResourceService
            from machinery.grpc import add_port, server

            self._service = ResourceService(
                self.registry, self.gate, self.virtual, self.metrics, secure=settings.tls is not None
            )
            if settings.auditor is not None:
                from apiserver.grpc.audited import audit_calls

                audit_calls(self._service, settings.auditor, self.gate)
            self._grpc = server()
            self._grpc.add_generic_rpc_handlers((self._service.handler(),))
            self.grpc_ports = [add_port(self._grpc, address, settings.tls) for address in settings.grpc_binds]
            await self._grpc.start()

    async def _stop_doors(self) -> None:
        self._stopping = True
        if self._masters is not None and self.registry.feed.ready:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1):
                    await self._masters.leave()
        if self.settings.shutdown_delay:  # those who balance load need a moment to see that /readyz fails
            await asyncio.sleep(self.settings.shutdown_delay)
        await self.streams.stop()
        if self._service is not None:
            await self._service.stop()
        async with asyncio.TaskGroup() as group:
            if self._rest is not None:
                group.create_task(self._rest.stop(STOP_GRACE))
            if self._grpc is not None:
                group.create_task(_stopped(self._grpc))
        if self.settings.auditor is not None:
            self.settings.auditor.close()


async def _stopped(server: grpc.aio.Server) -> None:
    await server.stop(STOP_GRACE)


def _store(settings: Settings) -> Store:
    if settings.etcd:
        from apiserver.storage.etcd import EtcdStore

        return EtcdStore(settings.etcd, settings.etcd_pair)
    from apiserver.storage.memory import MemoryStore

    return MemoryStore()
