"""The arguments of plugins in a KubeSchedulerConfiguration: their fields, their limits, and the plugins they make.

Owns one struct and one function per plugin that takes arguments; the limits are upstream's, and so are their texts
where upstream has one. Called by configuration.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import pairwise
from typing import Any, Final

import msgspec

from api.models import core_v1
from scheduler.framework.interface import Plugin
from scheduler.framework.scoring import MAX_SHAPE_SCORE, Scoring, Strategy
from scheduler.plugins.balanced_allocation import BalancedAllocation
from scheduler.plugins.default_preemption import DefaultPreemption
from scheduler.plugins.inter_pod_affinity import HARD_AFFINITY_WEIGHT, InterPodAffinity
from scheduler.plugins.node_affinity import NodeAffinity
from scheduler.plugins.node_resources_fit import NodeResourcesFit
from scheduler.plugins.pod_topology_spread import SYSTEM_DEFAULTS, PodTopologySpread
from scheduler.plugins.volume_binding import BIND_TIMEOUT, VolumeBinding

API_VERSION: Final = "kubescheduler.config.k8s.io/v1"


class ArgumentError(ValueError):
    """The arguments cannot be used; the text names the field."""


class ResourceWeight(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    weight: int = 1


class ShapePoint(msgspec.Struct, forbid_unknown_fields=True):
    utilization: int
    score: int


class Ratio(msgspec.Struct, forbid_unknown_fields=True):
    shape: list[ShapePoint] = []


class ScoringStrategyArgs(msgspec.Struct, forbid_unknown_fields=True):
    type: Strategy = Strategy.LEAST_ALLOCATED
    resources: list[ResourceWeight] = []
    requestedToCapacityRatio: Ratio | None = None


class _Args(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    apiVersion: str = API_VERSION
    kind: str = ""


class FitArgs(_Args, kw_only=True):
    scoringStrategy: ScoringStrategyArgs = msgspec.field(default_factory=ScoringStrategyArgs)
    ignoredResources: list[str] = []
    ignoredResourceGroups: list[str] = []


class BalancedArgs(_Args, kw_only=True):
    resources: list[ResourceWeight] = []


class InterPodArgs(_Args, kw_only=True):
    hardPodAffinityWeight: int = HARD_AFFINITY_WEIGHT
    ignorePreferredTermsOfExistingPods: bool = False


class NodeAffinityArgs(_Args, kw_only=True):
    addedAffinity: core_v1.NodeAffinity | None = None


class SpreadArgs(_Args, kw_only=True):
    defaultConstraints: list[dict[str, Any]] = []
    defaultingType: str = "System"


class PreemptionArgs(_Args, kw_only=True):
    minCandidateNodesPercentage: int = 10
    minCandidateNodesAbsolute: int = 100


class VolumeBindingArgs(_Args, kw_only=True):
    bindTimeoutSeconds: int = int(BIND_TIMEOUT)
    shape: list[ShapePoint] = []


def _once(path: str, names: Iterable[str]) -> None:
    seen: set[str] = set()
    for index, name in enumerate(names):
        if name in seen:
            raise ArgumentError(f'{path}[{index}].name: Duplicate value: "{name}"')
        seen.add(name)


def _shape(path: str, points: Iterable[ShapePoint]) -> tuple[tuple[int, int], ...]:
    shape = tuple((point.utilization, point.score) for point in points)
    rising = all(low[0] < high[0] for low, high in pairwise(shape))
    inside = all(0 <= at <= 100 and 0 <= score <= MAX_SHAPE_SCORE for at, score in shape)
    if not shape or not rising or not inside:
        raise ArgumentError(f"{path}: wants points of rising utilization (0-100) with scores of 0-10")
    return shape


def _scoring(args: ScoringStrategyArgs) -> Scoring:
    _once("scoringStrategy.resources", (each.name for each in args.resources))
    weights = tuple((each.name, each.weight) for each in args.resources) or Scoring().weights
    for index, (_, weight) in enumerate(weights):
        if not 1 <= weight <= 100:
            path = f"scoringStrategy.resources[{index}].weight"
            raise ArgumentError(f"{path}: Invalid value: {weight}: resource weight not in valid range (0, 100]")
    shape: tuple[tuple[int, int], ...] = ()
    if args.type is Strategy.REQUESTED_TO_CAPACITY_RATIO:
        points = args.requestedToCapacityRatio.shape if args.requestedToCapacityRatio is not None else []
        shape = _shape("scoringStrategy.requestedToCapacityRatio.shape", points)
    return Scoring(args.type, weights, shape)


def _fit(args: FitArgs) -> Plugin:
    for index, group in enumerate(args.ignoredResourceGroups):
        if "/" in group:
            raise ArgumentError(
                f"ignoredResourceGroups[{index}]: Invalid value: {group!r}: resource group name can't contain '/'"
            )
    return NodeResourcesFit(_scoring(args.scoringStrategy), args.ignoredResources, args.ignoredResourceGroups)


def _balanced(args: BalancedArgs) -> Plugin:
    _once("resources", (each.name for each in args.resources))
    for index, each in enumerate(args.resources):
        if each.weight != 1:
            raise ArgumentError(f"resources[{index}].weight: Invalid value: {each.weight}: must be 1")
    if args.resources and {each.name for each in args.resources} != {"cpu", "memory"}:
        raise ArgumentError("resources: only the balance of cpu and memory is supported")
    return BalancedAllocation()


def _inter_pod(args: InterPodArgs) -> Plugin:
    weight = args.hardPodAffinityWeight
    if not 0 <= weight <= 100:
        raise ArgumentError(f"hardPodAffinityWeight: Invalid value: {weight}: not in valid range [0, 100]")
    return InterPodAffinity(weight, args.ignorePreferredTermsOfExistingPods)


def _node_affinity(args: NodeAffinityArgs) -> Plugin:
    added = args.addedAffinity
    required = added.requiredDuringSchedulingIgnoredDuringExecution if added is not None else None
    if required is not None and not required.nodeSelectorTerms:
        path = "addedAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms"
        raise ArgumentError(f"{path}: Required value: must have at least one node selector term")
    for index, term in enumerate((added.preferredDuringSchedulingIgnoredDuringExecution if added else None) or ()):
        if not 1 <= term.weight <= 100:
            path = f"addedAffinity.preferredDuringSchedulingIgnoredDuringExecution[{index}].weight"
            raise ArgumentError(f"{path}: Invalid value: {term.weight}: must be in the range 1-100")
    return NodeAffinity(added)


def _spread(args: SpreadArgs) -> Plugin:
    if args.defaultingType == "System":
        if args.defaultConstraints:
            raise ArgumentError("defaultingType: when .defaultConstraints are not empty, it must be List")
        return PodTopologySpread(SYSTEM_DEFAULTS)
    if args.defaultingType != "List":
        raise ArgumentError(
            f'defaultingType: Unsupported value: "{args.defaultingType}": supported values: "System", "List"'
        )
    made = msgspec.convert(args.defaultConstraints, list[core_v1.TopologySpreadConstraint])
    seen: set[tuple[str, str]] = set()
    for index, each in enumerate(made):
        path = f"defaultConstraints[{index}]"
        if each.maxSkew <= 0:
            raise ArgumentError(f"{path}.maxSkew: Invalid value: {each.maxSkew}: not in valid range (0, inf)")
        if not each.topologyKey:
            raise ArgumentError(f"{path}.topologyKey: Required value: can not be empty")
        if each.whenUnsatisfiable not in ("DoNotSchedule", "ScheduleAnyway"):
            raise ArgumentError(f'{path}.whenUnsatisfiable: Unsupported value: "{each.whenUnsatisfiable}"')
        if each.labelSelector is not None:
            text = "constraint must not define a selector, as they deduced for each pod"
            raise ArgumentError(f"{path}.labelSelector: Forbidden: {text}")
        if (each.topologyKey, each.whenUnsatisfiable) in seen:
            raise ArgumentError(f'{path}: Duplicate value: "{{{each.topologyKey}, {each.whenUnsatisfiable}}}"')
        seen.add((each.topologyKey, each.whenUnsatisfiable))
    return PodTopologySpread(made, system_defaults=False)


def _preemption(args: PreemptionArgs) -> Plugin:
    share, least = args.minCandidateNodesPercentage, args.minCandidateNodesAbsolute
    if not 0 <= share <= 100:
        raise ArgumentError(f"minCandidateNodesPercentage: Invalid value: {share}: not in valid range [0, 100]")
    if least < 0:
        raise ArgumentError(f"minCandidateNodesAbsolute: Invalid value: {least}: not in valid range [0, inf)")
    if not share and not least:
        raise ArgumentError("minCandidateNodesPercentage and minCandidateNodesAbsolute cannot both be zero")
    return DefaultPreemption(percentage=share, least=least)


def _volume_binding(args: VolumeBindingArgs) -> Plugin:
    if args.bindTimeoutSeconds < 0:
        text = "invalid BindTimeoutSeconds, should not be a negative value"
        raise ArgumentError(f"bindTimeoutSeconds: Invalid value: {args.bindTimeoutSeconds}: {text}")
    if args.shape:
        raise ArgumentError(
            "shape: unexpected field `shape`, could be set only if feature gate StorageCapacityScoring enabled"
        )
    return VolumeBinding(timeout=float(args.bindTimeoutSeconds))


_CONFIGURABLE: Final[Mapping[str, tuple[type[_Args], Callable[[Any], Plugin]]]] = {
    "NodeResourcesFit": (FitArgs, _fit),
    "NodeResourcesBalancedAllocation": (BalancedArgs, _balanced),
    "NodeAffinity": (NodeAffinityArgs, _node_affinity),
    "InterPodAffinity": (InterPodArgs, _inter_pod),
    "PodTopologySpread": (SpreadArgs, _spread),
    "DefaultPreemption": (PreemptionArgs, _preemption),
    "VolumeBinding": (VolumeBindingArgs, _volume_binding),
}


def plugin_with(name: str, args: Mapping[str, Any]) -> Plugin:
    """The plugin as its arguments want it. Raises ArgumentError."""
    known = _CONFIGURABLE.get(name)
    if known is None:
        raise ArgumentError("this plugin takes no arguments here")
    type_, make = known
    try:
        made = msgspec.convert(args, type_)
    except msgspec.ValidationError as error:
        raise ArgumentError(str(error)) from error
    if made.apiVersion != API_VERSION or made.kind not in ("", f"{name}Args"):
        raise ArgumentError(f"wanted {name}Args of {API_VERSION}, not {made.kind} of {made.apiVersion}")
    try:
        return make(made)
    except msgspec.ValidationError as error:
        raise ArgumentError(str(error)) from error
