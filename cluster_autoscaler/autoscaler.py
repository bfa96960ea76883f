"""The loop: look, decide, act, tell; every scan interval of cluster time.

Owns the order of a pass and everything it writes apart from removals (`removal`) and taints (`taints`). A cloud that
does not answer ends the pass with nothing changed.
"""
# mypy: disable-error-code="union-attr"

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final

from api import codec
from api.models import core_v1
from client.client import Client, PatchType
from client.events import NORMAL, WARNING, EventRecorder
from client.informer import Informers
from cluster_autoscaler import choosing, expanders
from cluster_autoscaler import node_facts as facts
from cluster_autoscaler.cloud_view import CloudReader, CloudView
from cluster_autoscaler.cluster import Cluster
from cluster_autoscaler.expanders import Knowledge
from cluster_autoscaler.explain import Explainer, LastPass
from cluster_autoscaler.metrics import Metrics
from cluster_autoscaler.options import Options
from cluster_autoscaler.planner import Plan, Planner
from cluster_autoscaler.provider import Instance, NodeRef, Provider, ProviderError
from cluster_autoscaler.registry import ClusterStateRegistry, Findings
from cluster_autoscaler.removal import Removals
from cluster_autoscaler.scale_down import Cooldown, Facts, Removal, ScaleDownPlanner
from cluster_autoscaler.scale_up import ScaleUp
from cluster_autoscaler.simulation import Simulator
from cluster_autoscaler.status import StatusWriter, config_map
from cluster_autoscaler.taints import Taints
from cluster_autoscaler.templates import Template
from machinery import log
from machinery.clock import Clock
from machinery.errors import NotFound, StatusError
from machinery.log import kv
from machinery.meta import rfc3339
from scheduler.framework.pod_info import PodInfo

NAME: Final = "cluster-autoscaler"
_log = log.get(__name__)


class Autoscaler:
    """One cluster, one cloud."""

    def __init__(
        self,
        client: Client,
        clock: Clock,
        informers: Informers,
        recorder: EventRecorder,
        provider: Provider,
        options: Options,
        rng: random.Random | None = None,
        expander: choosing.Remote | None = None,
    ) -> None:
        self._client = client
        self._clock = clock
        self._recorder = recorder
        self._provider = provider
        self._options = options
        self._expander = expander
        self._rng = rng or random.Random()
        self.cluster = Cluster(informers)
        self.registry = ClusterStateRegistry(options, clock)
        self._reader = CloudReader(provider, clock, options.group)
        scale_down = ScaleDownPlanner(options, clock)
        self._planner = Planner(Simulator(self.cluster.snapshot), options, scale_down, self._rng)
        self._cooldown = Cooldown(options, clock.monotonic())
        self._taints = Taints(client, clock, options.cordon_node_before_terminating)
        self.removals = Removals(
            client, clock, self.cluster, provider, self._taints, recorder, options, self._removal_done
        )
        self._status = StatusWriter(clock)
        self.explainer = Explainer(self.registry, self.removals)
        self.metrics = Metrics(self.registry)
        self._status_ref: dict[str, Any] = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": options.status_config_map, "namespace": options.namespace},
        }

    async def run(self) -> None:
        """Until cancelled."""
        for informer in self.cluster.informers():
            await informer.wait_synced()
        clean = False
        try:
            while True:
                try:
                    if not clean:
                        await self._taints.clean(self.cluster.node_list())
                        clean = True
                    await self.run_once()
                except (ProviderError, StatusError) as error:
                    self._halt(f"{type(error).__name__}: {error}")
                except Exception as error:  # noqa: BLE001  a defect in one pass must not be the end of all
                    _log.exception("Pass failed")
                    self._halt(f"{type(error).__name__}: {error}")
                await self._clock.sleep(self._options.scan_interval)
        finally:
            await self.removals.stop()

    def _halt(self, why: str) -> None:
        self.metrics.add("errors_total")
        _log.warning("Nothing was decided", extra=kv(error=why))
        self.explainer.last.halted = why

    async def run_once(self) -> Plan:
        """One pass. Raises ProviderError and StatusError with nothing changed after the failure."""
        started = time.monotonic()
        nodes = self.cluster.node_list()
        view = await self._reader.read(nodes)
        now = self._clock.monotonic()
        found = self.registry.update(now, view, nodes)
        self.metrics.node_groups = len(view.groups)
        await self._mend(now, view, found)
        if not self.registry.healthy:
            self.explainer.last = self._remember(now, view, Plan(), nodes, "too many nodes are unready")
            self._recorder.event(self._status_ref, WARNING, "ClusterUnhealthy", "Cluster is unhealthy")
            await self._tell(now, view, {})
            return Plan()
        oldest = self._clock.now() - timedelta(seconds=self._clock.real(self._options.new_pod_scale_up_delay))
        waiting = self._planner.waiting(self.cluster.pods.lister.list(), oldest)
        templates = self._planner.templates(view, nodes, self.cluster.daemons.lister.list())
        known = await self._knowledge(templates, waiting)
        facts_now = self._facts(now, view, nodes)
        plan = self._planner.draft(now, self.registry, templates, waiting, facts_now)
        best = await choosing.choose(plan.scale_up.options, self._options.expanders, known, self._rng, self._expander)
        self._planner.settle(plan, best, facts_now)
        self.metrics.unschedulable = len(plan.scale_up.waiting)
        self.metrics.unneeded = len(plan.scale_down.unneeded)
        self.explainer.last = self._remember(now, view, plan, nodes)
        await self._scale_up(now, plan.scale_up)
        for removal in plan.scale_down.removals:
            self._remove(removal)
        await self._mark_candidates(nodes, plan)
        await self._tell(now, view, {name: view.group_of[name] for name in plan.scale_down.unneeded})
        self.metrics.pass_seconds = time.monotonic() - started
        return plan

    def _remember(
        self, now: float, view: CloudView, plan: Plan, nodes: Sequence[core_v1.Node], halted: str = ""
    ) -> LastPass:
        return LastPass(rfc3339(self._clock.now()), now, halted, view, plan, tuple(facts.name(node) for node in nodes))

    def _facts(self, now: float, view: CloudView, nodes: list[core_v1.Node]) -> Facts:
        allowed, why = self._cooldown.check(now)
        active = self.removals.active
        leaving: dict[str, int] = {}
        for each in active.values():
            leaving[each.group] = leaving.get(each.group, 0) + 1
        return Facts(
            view,
            nodes,
            self.cluster.relations.budgets(),
            self.cluster.exists,
            frozenset(active),
            sum(not each.empty for each in active.values()),
            leaving,
            allowed,
            why,
        )

    # --- what went wrong before --------------------------------------------------------------------------------------

    async def _mend(self, now: float, view: CloudView, found: Findings) -> None:
        """Tell failures, give back machines that never became nodes, lower targets that are not met."""
        for failure in found.failures:
            self.metrics.add("failed_scale_ups_total")
            reason = "ScaleUpTimedOut" if failure.code == "timeout" else "FailedToScaleUpGroup"
            self._recorder.event(self._status_ref, WARNING, reason, failure.message)
        for name, machines in (*found.broken.items(), *found.never_came.items()):
            await self._give_back(view, name, machines)
        for name, delta in found.too_high.items():
            await self._attempt(self._provider.decrease_target_size(name, delta), "lower the target", name)

    async def _give_back(self, view: CloudView, name: str, machines: list[Instance]) -> None:
        group = view.groups[name]
        count = min(len(machines), group.target - group.group.min_size)
        if count <= 0:
            return
        refs = [NodeRef(each.id, each.id) for each in machines[:count]]
        message = f"Removing {count} unregistered machines of group {name}"
        self._recorder.event(self._status_ref, NORMAL, "DeleteUnregistered", message)
        if await self._attempt(self._provider.delete_nodes(name, refs), "give back machines", name):
            group.target -= count

    async def _attempt(self, call: Any, what: str, group: str) -> bool:
        try:
            await call
        except ProviderError as error:
            _log.warning(f"Could not {what}", extra=kv(group=group, error=error))
            return False
        return True

    # --- adding ------------------------------------------------------------------------------------------------------

    async def _knowledge(self, templates: dict[str, Template], waiting: Sequence[core_v1.Pod]) -> Knowledge:
        """What the chosen expanders have to know."""
        nodes: dict[str, float] = {}
        pods: dict[str, float] = {}
        chain = self._options.expanders
        if "price" in chain and waiting:
            start = self._clock.now()
            hours = self._clock.real(3600.0) / 3600.0
            for name, template in templates.items():
                price = await self._provider.node_price(template.node, start, hours)
                if price is not None:
                    nodes[name] = price
            pods = await self._pod_prices(waiting, hours)
        return Knowledge(nodes, pods, await self._priorities() if "priority" in chain else {})

    async def _pod_prices(self, waiting: Sequence[core_v1.Pod], hours: float) -> dict[str, float]:
        """By uid; pods that request the same cost the same."""
        known: dict[tuple[tuple[str, int], ...], float | None] = {}
        found: dict[str, float] = {}
        for pod in waiting:
            info = PodInfo(pod)
            key = tuple(sorted(info.requests.items()))
            if key not in known:
                known[key] = await self._provider.pod_price(pod, self._clock.now(), hours)
            price = known[key]
            if price is not None:
                found[info.uid] = price
        return found

    async def _priorities(self) -> expanders.Priorities:
        try:
            found = await self._client.get(core_v1.ConfigMap, expanders.PRIORITY_CONFIG_MAP, self._options.namespace)
        except NotFound:
            return {}
        try:
            return expanders.parse_priorities((found.data or {}).get("priorities", ""))
        except ValueError as error:
            message = f"Wrong configuration for priority expander: {error}. Ignoring update."
            self._recorder.event(found, WARNING, "PriorityConfigMapInvalid", message)
            return {}

    async def _scale_up(self, now: float, plan: ScaleUp) -> None:
        done = []
        for each in plan.raises:
            ref, delta = self._status_ref, each.new - each.old
            size = f"{each.new} instead of {each.old} (max: {each.maximum})"
            self._recorder.event(ref, NORMAL, "ScaledUpGroup", f"Scale-up: setting group {each.group} size to {size}")
            try:
                await self._provider.increase_size(each.group, delta)
            except ProviderError as error:
                self.registry.failed(now, each.group, error.code, str(error))
                self.metrics.add("failed_scale_ups_total")
                message = f"Scale-up failed for group {each.group}: {error}"
                self._recorder.event(ref, WARNING, "FailedToScaleUpGroup", message)
                _log.warning("Scale-up failed", extra=kv(group=each.group, error=error))
                continue
            self.registry.raised(now, each.group, each.new)
            self._cooldown.added = now
            self.metrics.add("scaled_up_nodes_total", delta)
            self._recorder.event(ref, NORMAL, "ScaledUpGroup", f"Scale-up: group {each.group} size set to {size}")
            _log.info("Raised group", extra=kv(group=each.group, old=each.old, new=each.new))
            done.append(each)
        helped = {info.uid for info in plan.pods} if plan.raises else set()
        raises = " ".join(map(str, done))
        for info in plan.waiting:
            if info.uid not in helped:
                self._recorder.event(info.pod, NORMAL, "NotTriggerScaleUp", plan.message(info.uid))
            elif done:
                self._recorder.event(info.pod, NORMAL, "TriggeredScaleUp", f"pod triggered scale-up: [{raises}]")

    # --- taking away -------------------------------------------------------------------------------------------------

    def _remove(self, removal: Removal) -> None:
        name = removal.node
        if removal.empty:
            self._recorder.event(
                self._status_ref, NORMAL, "ScaleDownEmpty", f'Scale-down: removing empty node "{name}"'
            )
        else:
            pods = ",".join(pod.name for pod in removal.moving)
            used = f"utilization: {removal.utilization:.4g}, pods to reschedule: {pods}"
            message = f'Scale-down: removing node "{name}", {used}'
            self._recorder.event(self._status_ref, NORMAL, "ScaleDown", message)
        self.removals.start(removal)

    def _removal_done(self, removal: Removal, error: str) -> None:
        now = self._clock.monotonic()
        if error:
            self._cooldown.failed = now
            message = f"Failed to remove node {removal.node}: {error}"
            self._recorder.event(self._status_ref, WARNING, "ScaleDownFailed", message)
            return
        self._cooldown.deleted = now
        self.metrics.add(f'scaled_down_nodes_total{{reason="{"empty" if removal.empty else "underutilized"}"}}')
        self.metrics.add("evicted_pods_total", len(removal.moving))

    async def _mark_candidates(self, nodes: Sequence[core_v1.Node], plan: Plan) -> None:
        """Unneeded nodes get the soft taint, a few per pass; those that are needed again lose it."""
        left = self._options.max_bulk_soft_taint_count
        for node in nodes:
            name = facts.name(node)
            wanted, has = name in plan.scale_down.unneeded, facts.has_taint(node, facts.CANDIDATE)
            if left <= 0 or wanted == has or name in self.removals.active:
                continue
            left -= 1
            try:
                await (self._taints.mark_candidate(name) if wanted else self._taints.unmark_candidate(name))
            except StatusError as error:
                _log.warning("Did not mark node", extra=kv(node=name, error=error))

    # --- telling -----------------------------------------------------------------------------------------------------

    async def _tell(self, now: float, view: CloudView, candidates: dict[str, str]) -> None:
        document = self._status.document(now, view, self.registry, candidates)
        options = self._options
        made = config_map(options.namespace, options.status_config_map, document, self._clock.now())
        try:
            try:
                await self._client.patch(
                    core_v1.ConfigMap, options.status_config_map, made, options.namespace, type=PatchType.MERGE
                )
            except NotFound:
                await self._client.create(codec.decode(codec.encode(made), core_v1.ConfigMap))
        except StatusError as error:
            _log.warning("Did not write the status", extra=kv(error=error))
