"""The CustomResourceDefinitions of autoscaling.k8s.io/v1, with upstream's schema.

Owns the two definitions as plain objects. Fields that only stand behind upstream's feature gates are in the schema, so
that the same manifests are accepted; the webhook refuses those whose gate is off.
"""

from __future__ import annotations

from typing import Any, Final

from vertical_autoscaler.objects import CHECKPOINTS, GROUP, MODES, VERSION, VPAS

Obj = dict[str, Any]
APPROVED: Final = "https://github.com/kubernetes/kubernetes/pull/63797"
QUANTITY: Final[Obj] = {
    "anyOf": [{"type": "integer"}, {"type": "string"}],
    "pattern": r"^(\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))(([KMGTPE]i)|[numkMGTPE]|([eE](\+|-)?(([0-9]+(\.[0-9]*)?)|"
    r"(\.[0-9]+))))?$",
    "x-kubernetes-int-or-string": True,
}
STRING: Final[Obj] = {"type": "string"}
TIME: Final[Obj] = {"type": "string", "format": "date-time", "nullable": True}


def definitions() -> list[Obj]:
    """Both, ready to be applied."""
    return [_definition(CHECKPOINTS, "vpacheckpoint", _checkpoint()), _definition(VPAS, "vpa", _vpa(), status=True)]


def _definition(resource: Any, short: str, schema: Obj, *, status: bool = False) -> Obj:
    version: Obj = {"name": VERSION, "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    if status:
        version |= {"subresources": {"status": {}}, "additionalPrinterColumns": _columns()}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{resource.plural}.{GROUP}",
            "annotations": {"api-approved.kubernetes.io": APPROVED},
        },
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": resource.kind,
                "listKind": resource.list_kind,
                "plural": resource.plural,
                "singular": resource.singular,
                "shortNames": [short],
            },
            "versions": [version],
        },
    }


def _columns() -> list[Obj]:
    target = ".status.recommendation.containerRecommendations[0].target"
    rows = (
        ("Mode", "string", ".spec.updatePolicy.updateMode"),
        ("CPU", "string", f"{target}.cpu"),
        ("Mem", "string", f"{target}.memory"),
        ("Provided", "string", ".status.conditions[?(@.type=='RecommendationProvided')].status"),
        ("Age", "date", ".metadata.creationTimestamp"),
    )
    return [{"name": name, "type": kind, "jsonPath": path} for name, kind, path in rows]


def _object(properties: Obj, *required: str, about: str = "", **more: Any) -> Obj:
    made: Obj = {"type": "object", "properties": properties, **more}
    if required:
        made["required"] = list(required)
    if about:
        made["description"] = about
    return made


def _array(items: Obj, about: str = "") -> Obj:
    return {"type": "array", "items": items, **({"description": about} if about else {})}


def _enum(*values: str, about: str = "") -> Obj:
    return {"type": "string", "enum": list(values), **({"description": about} if about else {})}


def _integer(about: str, form: str = "int32", **more: Any) -> Obj:
    return {"type": "integer", "format": form, "description": about, **more}


def _quantities(about: str) -> Obj:
    return {"type": "object", "additionalProperties": QUANTITY, "description": about}


def _root(about: str, spec: Obj, status: Obj, *required: str) -> Obj:
    meta = {"apiVersion": STRING, "kind": STRING, "metadata": {"type": "object"}}
    return _object({**meta, "spec": spec, "status": status}, *required, about=about)


def _vpa() -> Obj:
    reference = _object(
        {"apiVersion": STRING, "kind": STRING, "name": STRING},
        "kind",
        "name",
        about="The controller whose pods are scaled: a well-known one, or one with a scale subresource.",
        **{"x-kubernetes-map-type": "atomic"},
    )
    spec = _object(
        {
            "targetRef": reference,
            "updatePolicy": _update_policy(),
            "resourcePolicy": _object({"containerPolicies": _array(_container_policy())}),
            "recommenders": _array(
                _object({"name": STRING}, "name"), "Who recommends; empty means the default recommender."
            ),
            "startupBoost": _startup_boost(),
        },
        "targetRef",
        about="What is scaled, and how.",
    )
    condition = _object(
        {
            "type": STRING,
            "status": STRING,
            "reason": STRING,
            "message": STRING,
            "lastTransitionTime": {"type": "string", "format": "date-time"},
            "observedGeneration": _integer("The generation that the condition is about.", "int64", minimum=0),
        },
        "status",
        "type",
    )
    container = _object(
        {
            "containerName": STRING,
            "target": _quantities("What is recommended, within the policy."),
            "lowerBound": _quantities("The least that may suffice."),
            "upperBound": _quantities("More than this is likely wasted."),
            "uncappedTarget": _quantities("What would be recommended without a policy."),
        },
        "target",
    )
    status = _object(
        {
            "conditions": _array(condition),
            "observedGeneration": _integer("The generation that was last looked at.", "int64", minimum=0),
            "recommendation": _object({"containerRecommendations": _array(container)}),
        }
    )
    about = "VerticalPodAutoscaler sets the requests of pods from what their containers used."
    return _root(about, spec, status, "spec")


def _update_policy() -> Obj:
    requirement = _object(
        {
            "changeRequirement": _enum("TargetHigherThanRequests", "TargetLowerThanRequests"),
            "resources": _array(STRING),
        },
        "changeRequirement",
        "resources",
    )
    return _object(
        {
            "updateMode": _enum(*MODES, "InPlace", about="When changes are applied to pods; Recreate by default."),
            "minReplicas": _integer("How many pods must live before one is evicted."),
            "evictAfterOOMSeconds": _integer("An OOM kill within so many seconds is a quick one.", minimum=1),
            "evictionRequirements": _array(requirement, "All must hold before a pod is evicted."),
        }
    )


def _container_policy() -> Obj:
    return _object(
        {
            "containerName": {**STRING, "description": "A container's name, or * for those without a policy."},
            "mode": _enum("Auto", "Off"),
            "minAllowed": _quantities("The least that is recommended."),
            "maxAllowed": _quantities("The most that is recommended."),
            "controlledResources": _array(STRING, "What is recommended; cpu and memory by default."),
            "controlledValues": _enum("RequestsAndLimits", "RequestsOnly"),
            "oomBumpUpRatio": QUANTITY,
            "oomMinBumpUp": QUANTITY,
            "targetCPUPercentile": QUANTITY,
            "targetMemoryPercentile": QUANTITY,
            "memoryAggregationIntervalSeconds": _integer("Of one memory peak.", minimum=1),
            "memoryAggregationIntervalCount": _integer("Of memory peaks that are remembered.", "int64", minimum=1),
            "startupBoost": _startup_boost(),
        }
    )


def _startup_boost() -> Obj:
    cpu = _object(
        {
            "type": _enum("Factor", "Quantity"),
            "factor": _integer("Multiplies the request."),
            "quantity": QUANTITY,
            "durationSeconds": _integer("For how long after the pod is Ready."),
        },
        "type",
    )
    return _object({"cpu": cpu}, about="More CPU while a pod starts.")


def _checkpoint() -> Obj:
    histogram = _object(
        {
            "bucketWeights": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
            "referenceTimestamp": TIME,
            "totalWeight": {"type": "number"},
        }
    )
    status = _object(
        {
            "cpuHistogram": histogram,
            "memoryHistogram": histogram,
            "firstSampleStart": TIME,
            "lastSampleStart": TIME,
            "lastUpdateTime": TIME,
            "totalSamplesCount": {"type": "integer"},
            "version": STRING,
        }
    )
    spec = _object({"containerName": STRING, "vpaObjectName": STRING})
    return _root("VerticalPodAutoscalerCheckpoint is the recommender's memory of one container.", spec, status)
