"""VerticalPodAutoscaler objects as the component reads them, and its recommendation as it writes it.

Owns names, defaults and the reading of quantities. Fields carry the API's own names; what is not read is skipped.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

import msgspec

from api.models import meta_v1
from api.resources import Resource, Subresource
from client.kinds import View
from machinery import quantity

GROUP, VERSION = "autoscaling.k8s.io", "v1"
_STATUS = {"status": Subresource("")}
VPAS: Final = Resource(
    GROUP, VERSION, "verticalpodautoscalers", "VerticalPodAutoscaler", short_names=("vpa",), subresources=_STATUS
)
CHECKPOINTS: Final = Resource(
    GROUP,
    VERSION,
    "verticalpodautoscalercheckpoints",
    "VerticalPodAutoscalerCheckpoint",
    short_names=("vpacheckpoint",),
)
DEFAULT_CONTAINER: Final = "*"
DEFAULT_RECOMMENDER: Final = "default"
OFF, INITIAL, RECREATE, AUTO, IN_PLACE_OR_RECREATE = "Off", "Initial", "Recreate", "Auto", "InPlaceOrRecreate"
MODES: Final = (OFF, INITIAL, RECREATE, AUTO, IN_PLACE_OR_RECREATE)
REQUESTS_ONLY, REQUESTS_AND_LIMITS = "RequestsOnly", "RequestsAndLimits"
Quantities = dict[str, str | int | float]


def amount(resource: str, text: str | int | float) -> int:
    """Millicores of CPU; else the whole value. Raises ValueError."""
    return quantity.milli(text) if resource == "cpu" else quantity.value(text)


def amounts(quantities: Mapping[str, Any] | None) -> dict[str, int]:
    """Of a ResourceList; what cannot be read is left out."""
    found = {}
    for name, text in (quantities or {}).items():
        try:
            found[name] = amount(name, text)
        except ValueError:
            continue
    return found


def text(resource: str, number: int) -> str:
    """An amount as the API writes it: `250m`, `262144k`."""
    return quantity.format_milli(number) if resource == "cpu" else quantity.canonical(str(number))


def texts(found: Mapping[str, int]) -> dict[str, str]:
    return {name: text(name, number) for name, number in found.items()}


class TargetRef(msgspec.Struct):
    kind: str
    name: str
    apiVersion: str = ""


class EvictionRequirement(msgspec.Struct):
    resources: list[str] = []
    changeRequirement: str = ""


class UpdatePolicy(msgspec.Struct):
    updateMode: str | None = None
    minReplicas: int | None = None
    evictionRequirements: list[EvictionRequirement] = []


class ContainerPolicy(msgspec.Struct):
    containerName: str = ""
    mode: str | None = None
    minAllowed: Quantities | None = None
    maxAllowed: Quantities | None = None
    controlledResources: list[str] | None = None
    controlledValues: str | None = None

    @property
    def off(self) -> bool:
        return self.mode == OFF

    @property
    def resources(self) -> tuple[str, ...]:
        return ("cpu", "memory") if self.controlledResources is None else tuple(self.controlledResources)

    @property
    def limits_too(self) -> bool:
        return self.controlledValues != REQUESTS_ONLY

    def lowest(self, resource: str) -> int | None:
        return amounts(self.minAllowed).get(resource)

    def highest(self, resource: str) -> int | None:
        return amounts(self.maxAllowed).get(resource)


class ResourcePolicy(msgspec.Struct):
    containerPolicies: list[ContainerPolicy] = []


class Recommender(msgspec.Struct):
    name: str = ""


class Recommended(msgspec.Struct):
    containerName: str = ""
    target: Quantities = {}
    lowerBound: Quantities = {}
    upperBound: Quantities = {}
    uncappedTarget: Quantities = {}


class Recommendation(msgspec.Struct):
    containerRecommendations: list[Recommended] = []


class Condition(msgspec.Struct, omit_defaults=True):
    type: str
    status: str
    lastTransitionTime: str = ""
    reason: str = ""
    message: str = ""


class Spec(msgspec.Struct):
    targetRef: TargetRef | None = None
    updatePolicy: UpdatePolicy | None = None
    resourcePolicy: ResourcePolicy | None = None
    recommenders: list[Recommender] = []


class Status(msgspec.Struct):
    conditions: list[Condition] = []
    recommendation: Recommendation | None = None


class Vpa(msgspec.Struct):
    """One VerticalPodAutoscaler."""

    metadata: meta_v1.ObjectMeta
    spec: Spec = msgspec.field(default_factory=Spec)
    status: Status | None = None
    apiVersion: str = f"{GROUP}/{VERSION}"
    kind: str = "VerticalPodAutoscaler"

    @property
    def mode(self) -> str:
        """`Auto` is what it means by now: Recreate."""
        found = (self.spec.updatePolicy.updateMode if self.spec.updatePolicy is not None else None) or RECREATE
        return RECREATE if found == AUTO else found

    @property
    def ours(self) -> bool:
        """Whether the default recommender is meant."""
        named = self.spec.recommenders
        return not named or named[0].name == DEFAULT_RECOMMENDER

    def policy(self, container: str) -> ContainerPolicy:
        """Of that container; else the one for all; else one that allows everything."""
        policies = self.spec.resourcePolicy.containerPolicies if self.spec.resourcePolicy is not None else []
        for name in (container, DEFAULT_CONTAINER):
            for policy in policies:
                if policy.containerName == name:
                    return policy
        return ContainerPolicy()

    def recommended(self) -> dict[str, ContainerRecommendation]:
        """What the status recommends, by container."""
        found = self.status.recommendation if self.status is not None else None
        return (
            {each.containerName: ContainerRecommendation.of(each) for each in found.containerRecommendations}
            if (found is not None)
            else {}
        )


VPA: Final = View(VPAS, Vpa)


class ContainerRecommendation(NamedTuple):
    """Amounts by resource: millicores of CPU, bytes of memory."""

    name: str
    target: dict[str, int]
    lower: dict[str, int]
    upper: dict[str, int]
    uncapped: dict[str, int]

    @classmethod
    def of(cls, told: Recommended) -> ContainerRecommendation:
        return cls(
            told.containerName,
            amounts(told.target),
            amounts(told.lowerBound),
            amounts(told.upperBound),
            amounts(told.uncappedTarget),
        )

    def without(self, resources: Iterable[str]) -> ContainerRecommendation:
        """The same, silent about these resources."""
        dropped = frozenset(resources)
        kept = ({key: value for key, value in each.items() if key not in dropped} for each in self[1:])
        return ContainerRecommendation(self.name, *kept)

    def told(self) -> dict[str, Any]:
        """As the status has it."""
        return {
            "containerName": self.name,
            "target": texts(self.target),
            "lowerBound": texts(self.lower),
            "upperBound": texts(self.upper),
            "uncappedTarget": texts(self.uncapped),
        }
