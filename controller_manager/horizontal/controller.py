"""The autoscaler's loop: reads a target through `scale`, judges its metrics, writes the new size and the status.

Owns the order of a look and the last decision about each autoscaler. The arithmetic is in `replicas`, `behavior` and
`memory`, the words about metrics in `evaluation`. Called by app.py through `build`.
"""
# mypy: disable-error-code="union-attr"
# Objects from the server carry metadata, spec and status; the models call them optional.

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from api.models import autoscaling_v2, core_v1
from api.resources import Resource
from client.client import key_of
from client.controller import DONE, Controller, Result
from client.events import NORMAL, WARNING
from client.informer import EventHandler, Informer
from controller_manager.environment import Environment
from controller_manager.horizontal import behavior, status
from controller_manager.horizontal.behavior import Verdict
from controller_manager.horizontal.evaluation import Evaluation, Evaluator, Target
from controller_manager.horizontal.memory import Limits, Memory
from controller_manager.horizontal.metrics import MetricsSource
from controller_manager.horizontal.replicas import Patience, Tolerance
from controller_manager.horizontal.selectors import Selectors, one_pair
from controller_manager.horizontal.status import Conditions
from controller_manager.kinds import Kinds
from machinery.errors import NotFound, StatusError
from machinery.meta import ObjectKey
from machinery.selectors import LabelSelector
from proto.explain.v1 import explain_pb2 as pb

COMPONENT: Final = "horizontal-pod-autoscaler"
BY_LABEL: Final = "label"
WORKERS: Final = 5


@dataclass(slots=True)
class Decision:
    """What the last look at a target led to."""

    current: int
    wanted: int | None = None
    verdict: Verdict | None = None
    final: int = 0
    reason: str = ""
    evaluation: Evaluation | None = None
    at: str = ""
    tolerance: Tolerance | None = None
    limits: Limits | None = None
    bounds: tuple[int, int] = (0, 0)


@dataclass(slots=True)
class _Known:
    """What is known of one autoscaler between looks."""

    memory: Memory = field(default_factory=Memory)
    decision: Decision | None = None


@dataclass(slots=True)
class _Scale:
    """The `scale` subresource of the target."""

    resource: Resource
    version: str
    spec_replicas: int
    status_replicas: int
    selector: str


class _Refused(Exception):
    """The look ends here; conditions and events say why."""


def labels_of(pod: core_v1.Pod) -> Iterable[str]:
    """Indexer: each label with its namespace, so that a selector need not look at every pod."""
    return [f"{pod.metadata.namespace}/{key}={value}" for key, value in (pod.metadata.labels or {}).items()]


class HorizontalController:
    """One per process."""

    def __init__(self, env: Environment, source: MetricsSource) -> None:
        self._env = env
        self._client = env.client
        self._clock = env.clock
        self._options = env.options
        self._events = env.recorder(COMPONENT)
        self._kinds = Kinds(env)
        self._autoscalers: Informer[autoscaling_v2.HorizontalPodAutoscaler] = env.informers.informer(
            autoscaling_v2.HorizontalPodAutoscaler
        )
        self._pods: Informer[core_v1.Pod] = env.informers.informer(core_v1.Pod, indexers={BY_LABEL: labels_of})
        patience = Patience(
            self._clock.real(env.options.hpa_cpu_initialization_period),
            self._clock.real(env.options.hpa_initial_readiness_delay),
        )
        self._evaluator = Evaluator(source, patience, self._clock.now, self._kinds.by_kind)
        self._known: dict[ObjectKey, _Known] = {}
        self._selectors = Selectors()
        self.controller = Controller(
            "horizontal-pod-autoscaler",
            self.reconcile,
            clock=env.clock,
            informers=[self._autoscalers, self._pods, self._kinds.definitions],
            workers=WORKERS,
        )
        self._autoscalers.add_handler(EventHandler(self._added, self._updated, self._deleted))

    def decision(self, key: ObjectKey) -> Decision | None:
        """The last decision about an autoscaler."""
        known = self._known.get(key)
        return known.decision if known is not None else None

    def explain(self, namespace: str, name: str) -> pb.Decision | None:
        """The last decision, for people."""
        from controller_manager.horizontal.explain import explained

        found = self.decision(ObjectKey(namespace, name))
        return explained(f"{namespace}/{name}", found) if found is not None else None

    def _added(self, hpa: autoscaling_v2.HorizontalPodAutoscaler) -> None:
        self.controller.queue.add(key_of(hpa))

    def _updated(
        self, old: autoscaling_v2.HorizontalPodAutoscaler, new: autoscaling_v2.HorizontalPodAutoscaler
    ) -> None:
        if old.spec != new.spec:  # our own status is no reason to look again
            self.controller.queue.add(key_of(new))

    def _deleted(self, hpa: autoscaling_v2.HorizontalPodAutoscaler) -> None:
        self._known.pop(key_of(hpa), None)
        self._selectors.forget(key_of(hpa))

    async def reconcile(self, key: ObjectKey) -> Result:
        hpa = self._autoscalers.lister.get(key)
        if hpa is None:
            return DONE
        conditions = Conditions(hpa, self._clock.now())
        known = self._known.setdefault(key, _Known())
        with contextlib.suppress(_Refused):
            await self._look(key, hpa, known, conditions)
        await self._write_status(hpa, conditions)
        return Result(self._options.hpa_sync_period)

    async def _look(
        self, key: ObjectKey, hpa: autoscaling_v2.HorizontalPodAutoscaler, known: _Known, conditions: Conditions
    ) -> None:
        scale = await self._scale(hpa, conditions)
        current = scale.spec_replicas
        memory = known.memory
        memory.begin(current, self._clock.monotonic())
        selector = self._checked_selector(key, hpa, scale, conditions)
        low = 1 if hpa.spec.minReplicas is None else hpa.spec.minReplicas
        high = hpa.spec.maxReplicas
        decision = known.decision = Decision(current, final=current, at=status.stamp(self._clock.now()))
        decision.bounds = low, high
        statuses: list[dict[str, Any]] = []
        if current == 0 and low != 0:
            conditions.set(
                "ScalingActive",
                "False",
                "ScalingDisabled",
                "scaling is disabled since the replica count of the target is zero",
            )
            conditions.observe(current, 0, statuses)
            return
        if current > high:
            desired, reason = high, "Current number of replicas above Spec.MaxReplicas"
        elif current < low:
            desired, reason = low, "Current number of replicas below Spec.MinReplicas"
        else:
            decision.tolerance = self._tolerance(hpa)
            evaluation = decision.evaluation = await self._evaluated(hpa, scale, selector, decision.tolerance)
            self._check(hpa, current, evaluation, conditions)
            statuses = evaluation.statuses
            assert evaluation.replicas is not None
            decision.wanted = evaluation.replicas
            reason = (
                f"{evaluation.metric} above target" if evaluation.replicas > current else "All metrics below target"
            )
            window = self._options.hpa_downscale_stabilization
            decision.limits = memory.limit(
                hpa.spec.behavior, window, current, evaluation.replicas, low, high, self._clock.monotonic()
            )
            verdict = decision.verdict = decision.limits.verdict
            desired = verdict.replicas
            conditions.set("AbleToScale", "True", *verdict.able)
            conditions.set("ScalingLimited", "True" if verdict.is_limited else "False", *verdict.limited)
        decision.final, decision.reason = desired, reason if desired != current else ""
        if desired != current:
            await self._rescale(hpa, scale, desired, reason, statuses, conditions)
            memory.changed(hpa.spec.behavior, desired - current, self._clock.monotonic())
        conditions.observe(current, desired, statuses, rescaled=desired != current)

    # ---- reading ----

    async def _scale(self, hpa: autoscaling_v2.HorizontalPodAutoscaler, conditions: Conditions) -> _Scale:
        ref = hpa.spec.scaleTargetRef
        try:
            resource = self._kinds.by_kind(ref.apiVersion or "v1", ref.kind)
            if resource is None:
                raise NotFound(
                    f'no matches for kind "{ref.kind}" in group "{(ref.apiVersion or "").rpartition("/")[0]}"'
                )
            raw: dict[str, Any] = await self._client.get(
                resource, ref.name, hpa.metadata.namespace, subresource="scale"
            )
        except StatusError as error:
            self._tell(hpa, WARNING, "FailedGetScale", error.message)
            text = f"the HPA controller was unable to get the target's current scale: {error.message}"
            conditions.set("AbleToScale", "False", "FailedGetScale", text)
            raise _Refused from error
        text = "the HPA controller was able to get the target's current scale"
        conditions.set("AbleToScale", "True", "SucceededGetScale", text)
        spec, found = raw.get("spec") or {}, raw.get("status") or {}
        return _Scale(
            resource,
            (raw.get("metadata") or {}).get("resourceVersion") or "",
            int(spec.get("replicas") or 0),
            int(found.get("replicas") or 0),
            str(found.get("selector") or ""),
        )

    def _checked_selector(
        self, key: ObjectKey, hpa: autoscaling_v2.HorizontalPodAutoscaler, scale: _Scale, conditions: Conditions
    ) -> LabelSelector:
        if not scale.selector:
            self._tell(hpa, WARNING, "SelectorRequired", "selector is required")
            text = "the HPA target's scale is missing a selector"
            conditions.set("ScalingActive", "False", "InvalidSelector", text)
            raise _Refused
        try:
            selector = LabelSelector.parse(scale.selector)
        except ValueError as error:
            text = f"couldn't convert selector into a corresponding internal selector object: {error}"
            self._tell(hpa, WARNING, "InvalidSelector", text)
            conditions.set("ScalingActive", "False", "InvalidSelector", text)
            raise _Refused from error
        self._selectors.put(key, selector)
        rivals = self._selectors.rivals(
            key, [pod.metadata.labels or {} for pod in self._selected(key.namespace, selector)]
        )
        if rivals:
            names = " ".join(f"{each.namespace}/{each.name}" for each in sorted([key, *rivals]))
            text = f"pods by selector {scale.selector} are controlled by multiple HPAs: [{names}]"
            self._tell(hpa, WARNING, "AmbiguousSelector", text)
            conditions.set("ScalingActive", "False", "AmbiguousSelector", text)
            raise _Refused
        return selector

    def _selected(self, namespace: str, selector: LabelSelector) -> list[core_v1.Pod]:
        pair = one_pair(selector)
        lister = self._pods.lister
        found = lister.list(namespace) if pair is None else lister.by_index(BY_LABEL, f"{namespace}/{pair}")
        return [pod for pod in found if selector.matches(pod.metadata.labels)]

    # ---- judging ----

    async def _evaluated(
        self,
        hpa: autoscaling_v2.HorizontalPodAutoscaler,
        scale: _Scale,
        selector: LabelSelector,
        tolerance: Tolerance,
    ) -> Evaluation:
        namespace = hpa.metadata.namespace or ""
        pods = self._selected(namespace, selector)
        target = Target(namespace, scale.selector, scale.spec_replicas, scale.status_replicas, pods)
        return await self._evaluator.evaluate(hpa.spec.metrics or [], target, tolerance)

    def _check(
        self,
        hpa: autoscaling_v2.HorizontalPodAutoscaler,
        current: int,
        found: Evaluation,
        conditions: Conditions,
    ) -> None:
        """Tell what is wrong with metrics. Raises _Refused when they give no count."""
        for failure in (each.failure for each in found.outcomes if each.failure is not None):
            self._tell(hpa, WARNING, failure.reason, failure.text)
        if found.failure is not None:
            conditions.set("ScalingActive", "False", found.failure.reason, found.failure.message)
            self._tell(hpa, WARNING, "FailedComputeMetricsReplicas", found.error)
            conditions.observe(current, hpa.status.desiredReplicas if hpa.status else 0, found.statuses)
            raise _Refused
        text = f"the HPA was able to successfully calculate a replica count from {found.metric}"
        conditions.set("ScalingActive", "True", "ValidMetricFound", text)

    def _tolerance(self, hpa: autoscaling_v2.HorizontalPodAutoscaler) -> Tolerance:
        general = self._options.hpa_tolerance
        if hpa.spec.behavior is None:
            return Tolerance(general, general)
        up, down = behavior.rules_of(hpa.spec.behavior, 0)
        return Tolerance(
            general if up.tolerance is None else up.tolerance, general if down.tolerance is None else down.tolerance
        )

    # ---- writing ----

    async def _rescale(
        self,
        hpa: autoscaling_v2.HorizontalPodAutoscaler,
        scale: _Scale,
        desired: int,
        reason: str,
        statuses: list[dict[str, Any]],
        conditions: Conditions,
    ) -> None:
        try:
            await self._client.patch(
                scale.resource,
                hpa.spec.scaleTargetRef.name,
                {"spec": {"replicas": desired}},
                hpa.metadata.namespace,
                subresource="scale",
                resource_version=scale.version,
            )
        except StatusError as error:
            text = f"New size: {desired}; reason: {reason}; error: {error.message}"
            self._tell(hpa, WARNING, "FailedRescale", text)
            why = f"the HPA controller was unable to update the target scale: {error.message}"
            conditions.set("AbleToScale", "False", "FailedUpdateScale", why)
            conditions.observe(scale.spec_replicas, hpa.status.desiredReplicas if hpa.status else 0, statuses)
            raise _Refused from error
        text = f"the HPA controller was able to update the target scale to {desired}"
        conditions.set("AbleToScale", "True", "SucceededRescale", text)
        self._tell(hpa, NORMAL, "SuccessfulRescale", f"New size: {desired}; reason: {reason}")

    async def _write_status(self, hpa: autoscaling_v2.HorizontalPodAutoscaler, conditions: Conditions) -> None:
        patch = conditions.patch()
        if patch is None:
            return
        try:
            await self._client.patch(
                autoscaling_v2.HorizontalPodAutoscaler,
                hpa.metadata.name or "",
                {"status": patch},
                hpa.metadata.namespace,
                subresource="status",
            )
        except NotFound:
            return

    def _tell(self, hpa: autoscaling_v2.HorizontalPodAutoscaler, type_: str, reason: str, message: str) -> None:
        self._events.event(hpa, type_, reason, message)


def build(env: Environment) -> list[Controller]:
    """Nothing where no REST door is known: metrics are served there only."""
    if env.rest is None:
        return []
    made = HorizontalController(env, MetricsSource(env.rest, env.clock.monotonic))
    env.explains["hpa"] = made.explain
    return [made.controller]
