"""The controller manager's process: flags, the table of controllers, leader election, shared informers.

Owns: what runs and for how long. A controller that fails is logged and started again; the process lives on. Started as
`python -m controller_manager` or forked by the supervisor.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import socket
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

from client.backoff import Backoff
from client.client import Client, add_client_flags, client_from_args
from client.controller import Controller
from client.informer import Informers
from client.leases import LeaderElector, LeadershipLost
from client.rest import RestClient
from controller_manager import (
    admission_policy_status,
    cluster_role_aggregation,
    namespace,
    node_ipam,
    node_ttl,
    pod_gc,
    service_account,
    service_cidr,
    taint_eviction,
    ttl_after_finished,
)
from controller_manager.aggregated import AggregatedAccess, access_by
from controller_manager.attach_detach import controller as attach_detach
from controller_manager.certificates import approving, cleaning, signing
from controller_manager.cronjob import controller as cronjob
from controller_manager.daemonset import controller as daemonset
from controller_manager.deployment import controller as deployment
from controller_manager.disruption import controller as disruption
from controller_manager.endpoints import legacy, mirroring, slices
from controller_manager.environment import Build, Environment, Options, RestReader, Runnable
from controller_manager.garbage_collector import controller as garbage_collector
from controller_manager.horizontal import controller as horizontal
from controller_manager.job import controller as job
from controller_manager.node_lifecycle import controller as node_lifecycle
from controller_manager.persistent_volume import controller as persistent_volume
from controller_manager.persistent_volume import ephemeral, expansion, node_local
from controller_manager.protection import controller as protection
from controller_manager.replicaset import controller as replicaset
from controller_manager.resource_quota import controller as resource_quota
from controller_manager.statefulset import controller as statefulset
from controller_manager.tokens import bootstrap, service_accounts
from controller_manager.tokens import legacy as legacy_tokens
from machinery import component, log
from machinery.clock import Clock
from machinery.component import ComponentContext
from machinery.decisions import DecisionServer
from machinery.log import kv
from machinery.tls import KeyPair

NAME: Final = "controller-manager"
LEASE_NAMESPACE: Final = "kube-system"
LEASE_NAME: Final = "kube-controller-manager"

# A new controller is one module with `build(env)` and one line here. Names are upstream's.
CONTROLLERS: Final[Mapping[str, Build]] = {
    "deployment-controller": deployment.build,
    "replicaset-controller": replicaset.build_replicaset,
    "replicationcontroller-controller": replicaset.build_replication_controller,
    "daemonset-controller": daemonset.build,
    "job-controller": job.build,
    "service-cidr-controller": service_cidr.build,
    "ttl-after-finished-controller": ttl_after_finished.build,
    "disruption-controller": disruption.build,
    "cronjob-controller": cronjob.build,
    "statefulset-controller": statefulset.build,
    "horizontal-pod-autoscaler-controller": horizontal.build,
    "endpoints-controller": legacy.build,
    "endpointslice-controller": slices.build,
    "endpointslicemirroring-controller": mirroring.build,
    "namespace-controller": namespace.build,
    "serviceaccount-controller": service_account.build_service_account,
    "root-ca-certificate-publisher-controller": service_account.build_root_ca,
    "node-lifecycle-controller": node_lifecycle.build,
    "node-ipam-controller": node_ipam.build,
    "ttl-controller": node_ttl.build,
    "taint-eviction-controller": taint_eviction.build,
    "pod-garbage-collector-controller": pod_gc.build,
    "garbage-collector-controller": garbage_collector.build,
    "resourcequota-controller": resource_quota.build,
    "persistentvolumeclaim-protection-controller": protection.build_claims,
    "persistentvolume-protection-controller": protection.build_volumes,
    "volumeattributesclass-protection-controller": protection.build_classes,
    "clusterrole-aggregation-controller": cluster_role_aggregation.build,
    "validatingadmissionpolicy-status-controller": admission_policy_status.build,
    "certificatesigningrequest-approving-controller": approving.build,
    "certificatesigningrequest-signing-controller": signing.build,
    "certificatesigningrequest-cleaner-controller": cleaning.build,
    "bootstrap-signer-controller": bootstrap.build_signer,
    "token-cleaner-controller": bootstrap.build_cleaner,
    "serviceaccount-token-controller": service_accounts.build,
    "legacy-serviceaccount-token-cleaner-controller": legacy_tokens.build,
    "persistentvolume-binder-controller": persistent_volume.build,
    "persistentvolume-expander-controller": expansion.build,
    "ephemeral-volume-controller": ephemeral.build,
    "persistentvolume-attach-detach-controller": attach_detach.build,
    "node-local-volume-provisioner": node_local.build,
}
_log = log.get(__name__)


def chosen(wish: str) -> list[str]:
    """Names of the controllers that `--controllers` asks for: `*`, `-name`, `name`. Raises ValueError."""
    wishes = [each.strip() for each in wish.split(",") if each.strip()]
    unknown = [each for each in (wish.removeprefix("-") for wish in wishes) if each not in {"*", *CONTROLLERS}]
    if unknown:
        raise ValueError(f"unknown controllers: {', '.join(unknown)}; there are: {', '.join(CONTROLLERS)}")
    off = {each[1:] for each in wishes if each.startswith("-")}
    return [name for name in CONTROLLERS if (name in wishes or "*" in wishes) and name not in off]


class ControllerManager:
    """Controllers over shared informers; also run in-process by integration tests."""

    def __init__(
        self,
        client: Client,
        clock: Clock,
        options: Options,
        names: Sequence[str] | None = None,
        rest: RestReader | None = None,
        aggregated: AggregatedAccess | None = None,
    ) -> None:
        self.environment = Environment(client, clock, Informers(client, clock), options, rest, aggregated)
        self.running: list[Runnable] = []
        for name in CONTROLLERS if names is None else names:
            self.running.extend(CONTROLLERS[name](self.environment))

    async def run(self) -> None:
        """Run everything until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.environment.informers.run())
            for recorder in self.environment.recorders.values():
                group.create_task(self._keep(recorder.run, "events"))
            for each in self.running:
                group.create_task(self._keep(each.run, each.name))

    async def _keep(self, run: object, name: str) -> None:
        """Run it again whenever it fails: one broken controller must not take the others with it."""
        backoff = Backoff(initial=1.0, cap=60.0)
        while True:
            try:
                await run()  # type: ignore[operator]
                return
            except Exception:  # noqa: BLE001  # logged below
                _log.exception("Controller failed", extra=kv(controller=name))
                await self.environment.clock.sleep(backoff.next())


def parser() -> argparse.ArgumentParser:
    made = component.parser(NAME, "Runs the controllers that keep the cluster as its objects describe it.")
    add_client_flags(made)
    defaults = Options()
    made.add_argument("--controllers", default="*", help="which to run: *, name, -name; comma-separated")
    made.add_argument("--leader-elect", action="store_true", help="work only while holding the lease")
    made.add_argument("--rest-server", default="", metavar="URL", help="the API server's REST door (metrics)")
    made.add_argument("--explain", default="", metavar="unix:PATH", help="where to answer why it decided as it did")
    made.add_argument("--cluster-cidr", default="", help="range of pod addresses that nodes get a share of")
    made.add_argument("--node-cidr-mask-size", type=int, default=defaults.node_cidr_mask_size)
    made.add_argument(
        "--root-ca-file", "--root-ca", type=Path, help="CA certificate to publish to every namespace (default: --ca)"
    )
    made.add_argument("--cluster-signing-cert-file", type=Path, help="authority that signs certificate requests")
    made.add_argument("--cluster-signing-key-file", type=Path, help="its key")
    made.add_argument("--service-account-private-key-file", type=Path, help="key that signs the tokens of Secrets")
    made.add_argument("--node-monitor-period", type=float, default=defaults.node_monitor_period)
    made.add_argument("--node-monitor-grace-period", type=float, default=defaults.node_monitor_grace_period)
    made.add_argument("--node-startup-grace-period", type=float, default=defaults.node_startup_grace_period)
    made.add_argument("--node-eviction-rate", type=float, default=defaults.node_eviction_rate)
    made.add_argument("--secondary-node-eviction-rate", type=float, default=defaults.secondary_node_eviction_rate)
    made.add_argument("--unhealthy-zone-threshold", type=float, default=defaults.unhealthy_zone_threshold)
    made.add_argument("--large-cluster-size-threshold", type=int, default=defaults.large_cluster_size_threshold)
    made.add_argument("--terminated-pod-gc-threshold", type=int, default=defaults.terminated_pod_gc_threshold)
    hpa = "--horizontal-pod-autoscaler"
    made.add_argument(f"{hpa}-sync-period", type=float, default=defaults.hpa_sync_period)
    made.add_argument(f"{hpa}-tolerance", type=float, default=defaults.hpa_tolerance)
    made.add_argument(f"{hpa}-downscale-stabilization", type=float, default=defaults.hpa_downscale_stabilization)
    made.add_argument(f"{hpa}-cpu-initialization-period", type=float, default=defaults.hpa_cpu_initialization_period)
    made.add_argument(f"{hpa}-initial-readiness-delay", type=float, default=defaults.hpa_initial_readiness_delay)
    made.add_argument(
        "--node-volume-folder",
        default="",
        metavar="PATH",
        help="where nodes keep the volumes that we provision, {node} standing for the node (default: provision none)",
    )
    return made


def options_from(args: argparse.Namespace) -> Options:
    root_ca = args.root_ca_file or args.ca
    return Options(
        cluster_cidr=args.cluster_cidr,
        node_cidr_mask_size=args.node_cidr_mask_size,
        root_ca=root_ca.read_text() if root_ca is not None else "",
        signing_cert=args.cluster_signing_cert_file.read_text() if args.cluster_signing_cert_file else "",
        signing_key=args.cluster_signing_key_file.read_text() if args.cluster_signing_key_file else "",
        service_account_key=args.service_account_private_key_file,
        node_monitor_period=args.node_monitor_period,
        node_monitor_grace_period=args.node_monitor_grace_period,
        node_startup_grace_period=args.node_startup_grace_period,
        node_eviction_rate=args.node_eviction_rate,
        secondary_node_eviction_rate=args.secondary_node_eviction_rate,
        unhealthy_zone_threshold=args.unhealthy_zone_threshold,
        large_cluster_size_threshold=args.large_cluster_size_threshold,
        terminated_pod_gc_threshold=args.terminated_pod_gc_threshold,
        node_volume_folder=args.node_volume_folder,
        hpa_sync_period=args.horizontal_pod_autoscaler_sync_period,
        hpa_tolerance=args.horizontal_pod_autoscaler_tolerance,
        hpa_downscale_stabilization=args.horizontal_pod_autoscaler_downscale_stabilization,
        hpa_cpu_initialization_period=args.horizontal_pod_autoscaler_cpu_initialization_period,
        hpa_initial_readiness_delay=args.horizontal_pod_autoscaler_initial_readiness_delay,
    )


def _expose(context: ComponentContext, manager: ControllerManager) -> None:
    for each in manager.running:
        found = each if isinstance(each, Controller) else getattr(each, "controller", None)
        if not isinstance(found, Controller):
            continue
        metrics, label, queue = found.metrics, f'{{controller="{found.name}"}}', found.queue
        context.health.metric(f"controller_reconcile_total{label}", lambda m=metrics: float(m.reconciles))  # type: ignore[misc]
        context.health.metric(f"controller_reconcile_errors_total{label}", lambda m=metrics: float(m.errors))  # type: ignore[misc]
        context.health.metric(f"workqueue_depth{label}", lambda q=queue: float(len(q)))  # type: ignore[misc]


def main(argv: Sequence[str]) -> int:
    made = parser()
    args = made.parse_args(argv)
    try:
        names = chosen(args.controllers)
        options = options_from(args)
    except (ValueError, OSError) as error:
        made.error(str(error))

    async def body(context: ComponentContext) -> None:
        client = client_from_args(args, context.clock, field_manager="kube-controller-manager")
        pair = KeyPair(args.ca, args.cert, args.key) if args.ca else None
        rest = RestClient(args.rest_server, pair, user_agent="kube-controller-manager") if args.rest_server else None
        context.health.ready("informers", False)

        async def work() -> None:
            manager = ControllerManager(client, context.clock, options, names, rest, access_by(rest) if rest else None)
            _expose(context, manager)
            async with AsyncExitStack() as doors, asyncio.TaskGroup() as group:
                if args.explain:
                    await doors.enter_async_context(DecisionServer(args.explain, manager.environment.explains))
                group.create_task(manager.run())
                await manager.environment.informers.wait_synced()
                context.health.ready("informers")
                context.log.info("Started controllers", extra=kv(count=len(manager.running)))

        try:
            if args.leader_elect:
                context.health.ready("informers")  # a standby is as ready as it can be
                identity = f"{socket.gethostname()}_{os.getpid()}"
                elector = LeaderElector(client, context.clock, LEASE_NAMESPACE, LEASE_NAME, identity)
                await context.until_stopped(elector.run(work))
            else:
                await context.until_stopped(work())
        except LeadershipLost as error:
            # Start over as a fresh process: half-done work of a lost leader is the surest way to two leaders.
            context.log.error("Lost leadership", extra=kv(error=error))  # noqa: TRY400
            raise SystemExit(1) from error
        finally:
            await client.close()
            if rest is not None:
                await rest.close()

    return component.run(NAME, args, body)
