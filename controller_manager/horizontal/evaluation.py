"""One look at all metrics of an autoscaler: a proposal for each, or why there is none, and which one wins.

Owns the words that users read (conditions, events, status). The counts come from `horizontal.replicas`, the samples
from a source. Called by `horizontal.controller`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, NamedTuple, Protocol

import msgspec

from api.models import autoscaling_v2, core_v1
from api.resources import Resource
from controller_manager.horizontal import replicas
from controller_manager.horizontal.errors import MetricError
from controller_manager.horizontal.replicas import Patience, Proposal, Samples, Tolerance
from machinery import quantity
from machinery.selectors import LabelSelector

UNABLE: Final = "the HPA was unable to compute the replica count: {}"


class Source(Protocol):
    """Where samples come from; see `horizontal.metrics.MetricsSource`. Every method raises MetricError."""

    async def resource(self, resource: str, namespace: str, pods: Collection[str], container: str = "") -> Samples: ...
    async def pods(self, metric: str, namespace: str, selector: str, metric_selector: str) -> Samples: ...
    async def of_object(self, metric: str, namespace: str, plural: str, name: str, metric_selector: str) -> int: ...
    async def external(self, metric: str, namespace: str, selector: str) -> int: ...


@dataclass(frozen=True, slots=True)
class Target:
    """What is scaled, at this moment."""

    namespace: str
    selector: str
    spec_replicas: int
    status_replicas: int
    pods: list[core_v1.Pod]


class Failure(NamedTuple):
    """Why a metric gave no count: the reason of condition and event, the event's text, and what could not be had."""

    reason: str
    text: str
    what: str = ""

    @property
    def message(self) -> str:
        """The condition's."""
        return UNABLE.format(self.text)


@dataclass(frozen=True, slots=True)
class Outcome:
    """One metric's result: exactly one of `proposal` and `failure`."""

    name: str
    status: dict[str, Any] | None = None
    proposal: Proposal | None = None
    failure: Failure | None = None
    target: str = ""


@dataclass(slots=True)
class Evaluation:
    """All outcomes. `replicas` is None when no decision can be made; `failure` is then its reason."""

    outcomes: list[Outcome] = field(default_factory=list)
    replicas: int | None = None
    metric: str = ""
    failure: Failure | None = None

    @property
    def statuses(self) -> list[dict[str, Any]]:
        return [each.status or {"type": ""} for each in self.outcomes]

    @property
    def error(self) -> str:
        """What went wrong with some of the metrics, in one line."""
        failures = [each.failure for each in self.outcomes if each.failure is not None]
        if not failures:
            return ""
        first = f"{failures[0].what}: {failures[0].text}" if failures[0].what else failures[0].text
        return f"invalid metrics ({len(failures)} invalid out of {len(self.outcomes)}), first error is: {first}"


def decide(outcomes: Sequence[Outcome], spec_replicas: int) -> Evaluation:
    """The highest proposal wins; with a metric missing nothing is scaled down."""
    found = Evaluation(list(outcomes))
    best = 0
    for each in outcomes:
        if each.proposal is not None and (not found.metric or each.proposal.replicas > best):
            best, found.metric = each.proposal.replicas, each.name
    failures = [each.failure for each in outcomes if each.failure is not None]
    if len(failures) >= len(outcomes) or (failures and best < spec_replicas):
        found.failure = failures[0]
    else:
        found.replicas = best
    return found


class Evaluator:
    """Looks at the metrics of one autoscaler after the other."""

    def __init__(
        self,
        source: Source,
        patience: Patience,
        now: Callable[[], datetime],
        find: Callable[[str, str], Resource | None],
    ) -> None:
        """`find`: the resource of an apiVersion and kind."""
        self._source = source
        self._find = find
        self._patience = patience
        self._now = now

    async def evaluate(
        self, metrics: Sequence[autoscaling_v2.MetricSpec], target: Target, tolerance: Tolerance
    ) -> Evaluation:
        """Never raises for a metric: what is wrong with it is its outcome."""
        outcomes = [await self._outcome(metric, target, tolerance) for metric in metrics]
        return decide(outcomes, target.spec_replicas)

    async def _outcome(self, metric: autoscaling_v2.MetricSpec, target: Target, tolerance: Tolerance) -> Outcome:
        match metric.type:
            case "Resource" if metric.resource is not None:
                found = metric.resource
                return await self._resource(found.name, "", found.target, target, tolerance)
            case "ContainerResource" if metric.containerResource is not None:
                part = metric.containerResource
                return await self._resource(part.name, part.container, part.target, target, tolerance)
            case "Pods" if metric.pods is not None:
                return await self._pods(metric.pods, target, tolerance)
            case "Object" if metric.object is not None:
                return await self._object(metric.object, target, tolerance)
            case "External" if metric.external is not None:
                return await self._external(metric.external, target, tolerance)
        text = f'unknown metric source type "{metric.type}"'
        return Outcome(metric.type, failure=Failure("InvalidMetricSourceType", text))

    async def _resource(
        self,
        resource: str,
        container: str,
        wanted: autoscaling_v2.MetricTarget,
        target: Target,
        tolerance: Tolerance,
    ) -> Outcome:
        what = f"{resource} container resource" if container else f"{resource} resource"
        kind, key = ("ContainerResource", "containerResource") if container else ("Resource", "resource")
        by_percent = wanted.averageValue is None
        name = f"{what} utilization (percentage of request)" if by_percent else what
        told: dict[str, Any] = {"name": resource, **({"container": container} if container else {})}
        reason = f"FailedGet{kind}Metric"
        try:
            if by_percent and wanted.averageUtilization is None:
                raise MetricError("neither an average utilization target nor an average value target was set")
            try:
                names = {pod.metadata.name or "" for pod in target.pods if pod.metadata is not None}
                samples = await self._source.resource(resource, target.namespace, names, container)
            except MetricError as error:
                raise MetricError(f"unable to get metrics for resource {resource}: {error}") from error
            groups = self._grouped(target, samples, cpu=resource == "cpu")
            if by_percent:
                percent = wanted.averageUtilization or 0
                requests = replicas.requested(target.pods, resource, container)
                proposal = replicas.utilization(target.spec_replicas, percent, samples, requests, groups, tolerance)
                current = {"averageUtilization": proposal.utilization, "averageValue": _text(proposal.usage)}
                shown = f"{percent}%"
            else:
                amount = quantity.milli(wanted.averageValue or "")
                proposal = replicas.average(target.spec_replicas, amount, samples, groups, tolerance)
                current = {"averageValue": _text(proposal.usage)}
                shown = _text(amount)
        except MetricError as error:
            verb = "utilization" if by_percent else "usage"
            failed = f"failed to get {resource} {'container' if container else 'resource'} metric value"
            return Outcome(name, failure=Failure(reason, f"failed to get {resource} {verb}: {error}", failed))
        return Outcome(name, {"type": kind, key: {**told, "current": current}}, proposal, target=shown)

    async def _pods(self, metric: autoscaling_v2.PodsMetricSource, target: Target, tolerance: Tolerance) -> Outcome:
        identifier = metric.metric
        name = f"pods metric {identifier.name}"
        try:
            try:
                samples = await self._source.pods(
                    identifier.name, target.namespace, target.selector, _selector(identifier.selector)
                )
            except MetricError as error:
                raise MetricError(f"unable to get metric {identifier.name}: {error}") from error
            amount = quantity.milli(metric.target.averageValue or "0")
            groups = self._grouped(target, samples, cpu=False)
            proposal = replicas.average(target.spec_replicas, amount, samples, groups, tolerance)
        except MetricError as error:
            failure = Failure("FailedGetPodsMetric", str(error), "failed to get pods metric value")
            return Outcome(name, failure=failure)
        current = {"averageValue": _text(proposal.usage)}
        status = {"type": "Pods", "pods": {"metric": _identifier(identifier), "current": current}}
        return Outcome(name, status, proposal, target=_text(amount))

    async def _object(self, metric: autoscaling_v2.ObjectMetricSource, target: Target, tolerance: Tolerance) -> Outcome:
        identifier, thing = metric.metric, metric.describedObject
        name = f"{thing.kind} metric {identifier.name}"
        try:
            resource = self._find(thing.apiVersion or "v1", thing.kind)
            if resource is None:
                raise MetricError(f'no matches for kind "{thing.kind}" in version "{thing.apiVersion}"')
            plural = f"{resource.plural}.{resource.group}" if resource.group else resource.plural
            try:
                usage = await self._source.of_object(
                    identifier.name, target.namespace, plural, thing.name, _selector(identifier.selector)
                )
            except MetricError as error:
                where = f"{thing.kind} on {target.namespace} {thing.name}"
                raise MetricError(f"unable to get metric {identifier.name}: {where}/{error}") from error
            proposal, current, shown = self._judged(metric.target, usage, target, tolerance)
        except MetricError as error:
            failure = Failure("FailedGetObjectMetric", str(error), "failed to get object metric value")
            return Outcome(name, failure=failure)
        described = {"kind": thing.kind, "name": thing.name}
        if thing.apiVersion:
            described["apiVersion"] = thing.apiVersion
        status = {"metric": _identifier(identifier), "current": current, "describedObject": described}
        return Outcome(name, {"type": "Object", "object": status}, proposal, target=shown)

    async def _external(
        self, metric: autoscaling_v2.ExternalMetricSource, target: Target, tolerance: Tolerance
    ) -> Outcome:
        identifier = metric.metric
        selector = go_selector(identifier.selector)
        name = f"external metric {identifier.name}({selector})"
        try:
            try:
                usage = await self._source.external(identifier.name, target.namespace, _selector(identifier.selector))
            except MetricError as error:
                where = f"{target.namespace}/{identifier.name}/{selector}"
                raise MetricError(f"unable to get external metric {where}: {error}") from error
            proposal, current, shown = self._judged(metric.target, usage, target, tolerance)
        except MetricError as error:
            failed = f"failed to get {identifier.name} external metric value"
            return Outcome(name, failure=Failure("FailedGetExternalMetric", str(error), failed))
        status = {"metric": _identifier(identifier), "current": current}
        return Outcome(name, {"type": "External", "external": status}, proposal, target=shown)

    @staticmethod
    def _judged(
        wanted: autoscaling_v2.MetricTarget, usage: int, target: Target, tolerance: Tolerance
    ) -> tuple[Proposal, dict[str, Any], str]:
        """One value against a target: as it is, or divided by the replicas."""
        if wanted.value is not None:
            amount = quantity.milli(wanted.value)
            ready = replicas.ready_pods(target.pods)
            proposal = replicas.value(target.spec_replicas, ready, usage, amount, tolerance)
            return proposal, {"value": _text(usage)}, _text(amount)
        if wanted.averageValue is None:
            raise MetricError("neither a value target nor an average value target was set")
        amount = quantity.milli(wanted.averageValue)
        proposal = replicas.value_per_replica(target.status_replicas, usage, amount, tolerance)
        return proposal, {"averageValue": _text(proposal.usage)}, _text(amount)

    def _grouped(self, target: Target, samples: Samples, *, cpu: bool) -> replicas.Groups:
        if not target.pods:
            raise MetricError("no pods returned by selector while calculating replica count")
        return replicas.group(target.pods, samples, cpu=cpu, patience=self._patience, now=self._now())


def _selector(selector: Any) -> str:
    return str(LabelSelector.from_object(selector)) if selector is not None else ""


def go_selector(selector: Any) -> str:
    """A metav1.LabelSelector as Go prints it, which is how metrics are named in messages."""
    if selector is None:
        return "nil"
    labels = "".join(f"{key}: {value}," for key, value in sorted((selector.matchLabels or {}).items()))
    terms = "".join(
        f"LabelSelectorRequirement{{Key:{each.key},Operator:{each.operator},Values:[{' '.join(each.values or ())}],}},"
        for each in selector.matchExpressions or ()
    )
    return (
        f"&LabelSelector{{MatchLabels:map[string]string{{{labels}}},"
        f"MatchExpressions:[]LabelSelectorRequirement{{{terms}}},}}"
    )


def _identifier(identifier: autoscaling_v2.MetricIdentifier) -> dict[str, Any]:
    found: dict[str, Any] = {"name": identifier.name}
    if identifier.selector is not None:
        found["selector"] = msgspec.to_builtins(identifier.selector)
    return found


def _text(thousandths: int | None) -> str:
    return quantity.canonical(f"{thousandths or 0}m")
