"""The CustomResourceDefinitions of karpenter.sh/v1, with upstream's schema, and of our cloud's NodeClass.

Owns the definitions as plain objects: fields, defaults, bounds, CEL rules, columns. Static capacity (`replicas`), which
is alpha upstream, is left out.
"""

from __future__ import annotations

from typing import Any, Final

from nodepool_autoscaler import names
from nodepool_autoscaler.objects import NODE_CLAIMS, NODE_CLASSES, NODE_POOLS
from nodepool_autoscaler.requirements import OPERATORS

Obj = dict[str, Any]
STRING: Final[Obj] = {"type": "string"}
QUANTITY: Final[Obj] = {
    "anyOf": [{"type": "integer"}, {"type": "string"}],
    "pattern": r"^(\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))(([KMGTPE]i)|[numkMGTPE]|([eE](\+|-)?(([0-9]+(\.[0-9]*)?)|"
    r"(\.[0-9]+))))?$",
    "x-kubernetes-int-or-string": True,
}
_VALUE: Final = "^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$"
_KEY: Final = (
    r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*(\/))?([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]$"
)
_DURATION: Final = "^(([0-9]+(s|m|h))+|Never)$"


def definitions() -> list[Obj]:
    """All three, ready to be applied."""
    pool_columns = (
        ("NodeClass", "string", ".spec.template.spec.nodeClassRef.name", 0),
        ("Nodes", "string", ".status.resources.nodes", 0),
        ("Ready", "string", _condition_path("Ready"), 0),
        ("Age", "date", ".metadata.creationTimestamp", 0),
        ("Weight", "integer", ".spec.weight", 1),
        ("CPU", "string", ".status.resources.cpu", 1),
        ("Memory", "string", ".status.resources.memory", 1),
    )
    claim_columns = (
        ("Type", "string", r".metadata.labels.node\.kubernetes\.io/instance-type", 0),
        ("Capacity", "string", r".metadata.labels.karpenter\.sh/capacity-type", 0),
        ("Zone", "string", r".metadata.labels.topology\.kubernetes\.io/zone", 0),
        ("Node", "string", ".status.nodeName", 0),
        ("Ready", "string", _condition_path("Ready"), 0),
        ("Age", "date", ".metadata.creationTimestamp", 0),
        ("ID", "string", ".status.providerID", 1),
        ("NodePool", "string", r".metadata.labels.karpenter\.sh/nodepool", 1),
        ("NodeClass", "string", ".spec.nodeClassRef.name", 1),
        ("Drifted", "string", _condition_path("Drifted"), 1),
    )
    class_columns = (
        ("Machines", "string", ".spec.machines", 0),
        ("Ready", "string", _condition_path("Ready"), 0),
        ("Age", "date", ".metadata.creationTimestamp", 0),
    )
    return [
        _definition(NODE_CLASSES, ["karpenter"], _node_class(), class_columns),
        _definition(NODE_POOLS, ["karpenter"], _pool(), pool_columns),
        _definition(NODE_CLAIMS, ["karpenter"], _claim(), claim_columns),
    ]


def _definition(
    resource: Any, categories: list[str], schema: Obj, columns: tuple[tuple[str, str, str, int], ...]
) -> Obj:
    told = [
        {"name": name, "type": kind, "jsonPath": path, **({"priority": priority} if priority else {})}
        for name, kind, path, priority in columns
    ]
    version: Obj = {
        "name": names.VERSION,
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": schema},
        "subresources": {"status": {}},
        "additionalPrinterColumns": told,
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{resource.plural}.{resource.group}"},
        "spec": {
            "group": resource.group,
            "scope": "Cluster",
            "names": {
                "kind": resource.kind,
                "listKind": resource.list_kind,
                "plural": resource.plural,
                "singular": resource.singular,
                "categories": categories,
            },
            "versions": [version],
        },
    }


def _condition_path(kind: str) -> str:
    return f'.status.conditions[?(@.type=="{kind}")].status'


def _object(
    properties: Obj, *required: str, about: str = "", rules: tuple[tuple[str, str], ...] = (), **more: Any
) -> Obj:
    made: Obj = {"type": "object", "properties": properties, **more}
    if required:
        made["required"] = list(required)
    if about:
        made["description"] = about
    return made | _rules(rules)


def _rules(rules: tuple[tuple[str, str], ...]) -> Obj:
    """(message, rule)."""
    if not rules:
        return {}
    return {"x-kubernetes-validations": [{"message": message, "rule": rule} for message, rule in rules]}


def _text(about: str, **more: Any) -> Obj:
    return {"type": "string", "description": about, **more}


def _array(items: Obj, about: str, most: int = 0, rules: tuple[tuple[str, str], ...] = (), **more: Any) -> Obj:
    made: Obj = {"type": "array", "items": items, "description": about, **more}
    if most:
        made["maxItems"] = most
    return made | _rules(rules)


def _quantities(about: str) -> Obj:
    return {"type": "object", "additionalProperties": QUANTITY, "description": about}


def _root(about: str, spec: Obj, status: Obj) -> Obj:
    meta = {"apiVersion": STRING, "kind": STRING, "metadata": {"type": "object"}}
    return _object({**meta, "spec": spec, "status": status}, "spec", about=about)


def _conditions() -> Obj:
    condition = _object(
        {
            "type": _text("Of the condition, in CamelCase.", maxLength=316),
            "status": {"type": "string", "enum": ["True", "False", "Unknown"]},
            "reason": _text(
                "Why, in CamelCase.", minLength=1, maxLength=1024, pattern=r"^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$"
            ),
            "message": _text("The same for people.", maxLength=32768),
            "lastTransitionTime": {"type": "string", "format": "date-time"},
            "observedGeneration": {"type": "integer", "format": "int64", "minimum": 0},
        },
        "lastTransitionTime",
        "message",
        "reason",
        "status",
        "type",
    )
    return _array(condition, "Signals of health and readiness.")


# --- what pools and claims share -------------------------------------------------------------------------------------


def _domain(value: str) -> str:
    return f'{value}.find("^([^/]+)")'


def _label_rules(value: str, wrap: str) -> tuple[tuple[str, str], ...]:
    """Labels that only the kubelet, the cloud or we may set. `wrap`: around a rule about one key."""
    domain, known = _domain(value), str(list(names.KUBERNETES)).replace("'", '"')
    kubernetes = (
        f'{value} in {known} || {domain}.endsWith("node.kubernetes.io") || '
        f'{domain}.endsWith("node-restriction.kubernetes.io") || !{domain}.endsWith("kubernetes.io")'
    )
    ours = f'{value} in ["{names.CAPACITY_TYPE}", "{names.NODE_POOL}"] || !{domain}.endsWith("karpenter.sh")'
    return (
        ('label domain "kubernetes.io" is restricted', wrap % kubernetes),
        (
            'label domain "k8s.io" is restricted',
            wrap % f'{domain}.endsWith("kops.k8s.io") || !{domain}.endsWith("k8s.io")',
        ),
        ('label domain "karpenter.sh" is restricted', wrap % ours),
        ('label "kubernetes.io/hostname" is restricted', wrap % f'{value} != "{names.HOSTNAME}"'),
    )


_NO_POOL: Final = 'label "karpenter.sh/nodepool" is restricted'


def _requirements(*, of_pool: bool) -> Obj:
    key_rules = _label_rules("self", "%s") + (((_NO_POOL, f'self != "{names.NODE_POOL}"'),) if of_pool else ())
    item = _object(
        {
            "key": _text("The label's.", maxLength=316, pattern=_KEY) | _rules(key_rules),
            "operator": {"type": "string", "enum": list(OPERATORS)},
            "values": _array({**STRING}, "Of In and NotIn; one integer of Gt and Lt."),
            "minValues": {
                "type": "integer",
                "minimum": 1,
                "maximum": 50,
                "description": "How many values must be left to choose from when a machine is launched.",
            },
        },
        "key",
        "operator",
    )
    rules = (
        (
            "requirements with operator 'In' must have a value defined",
            "self.all(x, x.operator == 'In' ? x.values.size() != 0 : true)",
        ),
        (
            "requirements operator 'Gt' or 'Lt' must have a single positive integer value",
            "self.all(x, (x.operator == 'Gt' || x.operator == 'Lt') ? (x.values.size() == 1 && int(x.values[0]) >= 0) "
            ": true)",
        ),
        (
            "requirements with 'minValues' must have at least that many values specified in the 'values' field",
            "self.all(x, (x.operator == 'In' && has(x.minValues)) ? x.values.size() >= x.minValues : true)",
        ),
    )
    return _array(item, "What the labels of nodes must be.", 100, rules)


def _taints(about: str) -> Obj:
    taint = _object(
        {
            "key": _text("", minLength=1, pattern=_KEY),
            "value": _text("", pattern=_VALUE),
            "effect": {"type": "string", "enum": ["NoSchedule", "PreferNoSchedule", "NoExecute"]},
            "timeAdded": {"type": "string", "format": "date-time"},
        },
        "key",
        "effect",
    )
    return _array(taint, about)


def _class_reference() -> Obj:
    fields = {each: _text("", minLength=1) for each in ("kind", "name")}
    rules = tuple((f"{each} may not be empty", f"self.{each} != ''") for each in ("group", "kind", "name"))
    about = "What our cloud has to know besides."
    return _object({"group": _text("", pattern="^[^/]*$"), **fields}, "group", "kind", "name", about=about, rules=rules)


def _node_spec(*, of_pool: bool) -> Obj:
    return {
        "expireAfter": _text("How long a node may live.", default="720h", pattern=_DURATION),
        "nodeClassRef": _class_reference(),
        "requirements": _requirements(of_pool=of_pool),
        "startupTaints": _taints("Taints that somebody removes when the node has started."),
        "taints": _taints("Taints of the node."),
        "terminationGracePeriod": _text(
            "How long draining may take; then pods go regardless of budgets and of karpenter.sh/do-not-disrupt.",
            pattern="^([0-9]+(s|m|h))+$",
        ),
    }


# --- NodePool --------------------------------------------------------------------------------------------------------


def _pool() -> Obj:
    labels: Obj = {
        "type": "object",
        "additionalProperties": {"type": "string", "maxLength": 63, "pattern": _VALUE},
        "maxProperties": 100,
    } | _rules((*_label_rules("x", "self.all(x, %s)"), (_NO_POOL, f'self.all(x, x != "{names.NODE_POOL}")')))
    metadata = _object({"annotations": {"type": "object", "additionalProperties": STRING}, "labels": labels})
    fields = _node_spec(of_pool=True)
    fields["nodeClassRef"] |= _rules(
        (
            *((each["message"], each["rule"]) for each in fields["nodeClassRef"]["x-kubernetes-validations"]),
            ("nodeClassRef.group is immutable", "self.group == oldSelf.group"),
            ("nodeClassRef.kind is immutable", "self.kind == oldSelf.kind"),
        )
    )
    template = _object(
        {"metadata": metadata, "spec": _object(fields, "nodeClassRef", "requirements")},
        "spec",
        about="What claims are made of.",
    )
    spec = _object(
        {
            "template": template,
            "disruption": _disruption(),
            "limits": _quantities("The most that all nodes together may have: cpu, memory, nodes, …"),
            "weight": {
                "type": "integer",
                "format": "int32",
                "minimum": 1,
                "maximum": 100,
                "description": "Pools of a higher weight are tried first; none is 0.",
            },
        },
        "template",
    )
    status = _object(
        {
            "conditions": _conditions(),
            "nodeClassObservedGeneration": {"type": "integer", "format": "int64"},
            "resources": _quantities("What all nodes together have."),
        }
    )
    return _root("NodePool launches nodes for pods that find no room.", spec, status)


def _disruption() -> Obj:
    budget = _object(
        {
            "nodes": _text("How many nodes may go at once.", default="10%", pattern="^((100|[0-9]{1,2})%|[0-9]+)$"),
            "reasons": _array(
                {"type": "string", "enum": ["Underutilized", "Empty", "Drifted"]},
                "What it is about; all when none.",
                50,
            ),
            "schedule": _text(
                "When it begins to hold (cron, UTC).",
                pattern=r"^(@(annually|yearly|monthly|weekly|daily|midnight|hourly))|((.+)\s(.+)\s(.+)\s(.+)\s(.+))$",
            ),
            "duration": _text("How long it holds.", pattern="^((([0-9]+(h|m))|([0-9]+h[0-9]+m))(0s)?)$"),
        },
        "nodes",
    )
    rules = (("'schedule' must be set with 'duration'", "self.all(x, has(x.schedule) == has(x.duration))"),)
    policies = ["WhenEmpty", "WhenEmptyOrUnderutilized"]
    return _object(
        {
            "budgets": _array(budget, "The most restrictive one holds.", 50, rules, default=[{"nodes": "10%"}]),
            "consolidateAfter": _text("How long after its last change a node is left alone.", pattern=_DURATION),
            "consolidationPolicy": {"type": "string", "enum": policies, "default": policies[1]},
        },
        "consolidateAfter",
        default={"consolidateAfter": "0s"},
    )


# --- NodeClaim, NodeClass --------------------------------------------------------------------------------------------


def _claim() -> Obj:
    fields = _node_spec(of_pool=False)
    fields["resources"] = _object({"requests": _quantities("What its first pods and daemons need.")})
    rules = (("spec is immutable", "self == oldSelf"),)
    spec = _object(fields, "nodeClassRef", "requirements", rules=rules)
    status = _object(
        {
            "allocatable": _quantities("What pods may have of the node."),
            "capacity": _quantities("What the node has."),
            "conditions": _conditions(),
            "imageID": _text("What the node was started from."),
            "lastPodEventTime": _text("When a pod came to or left the node.", format="date-time"),
            "nodeName": _text("Of the Node."),
            "providerID": _text("Of the machine."),
        }
    )
    return _root("NodeClaim is one node, from the wish for it to its end.", spec, status)


def _node_class() -> Obj:
    spec = _object(
        {
            "machines": {
                "type": "string",
                "enum": ["Real", "Hollow"],
                "default": "Real",
                "description": "Machines that run containers, or ones that only play it.",
            },
            "bootDelay": _text("From the order to the start.", default="5s", pattern="^([0-9]+(ms|s|m|h))+$"),
            "zones": _array({**STRING}, "Where machines may be; anywhere when empty.", 20),
            "instanceTypes": _array({**STRING}, "What may be launched; everything when empty.", 100),
        }
    )
    status = _object({"conditions": _conditions()})
    schema = _root("NanokubeNodeClass says how our cloud launches machines.", spec, status)
    schema["properties"]["spec"]["default"] = {}
    schema.pop("required")
    return schema
