"""The form in which upstream writes any object: no nulls but its own, no empty optional fields, canonical quantities.

Owns which optional scalars vanish when they hold their zero value (upstream's non-pointer fields) and which stay
(pointers: `replicas: 0`, `storageClassName: ""`). Driven by the schema through plans that are compiled once per
definition. Called by `Strategy.canonicalize` for every built-in kind; custom resources are left as they are.
"""

from functools import cache
from typing import Any

from api import schema
from apiserver.nullable import NULLS
from machinery import quantity
from machinery.caching import keep_short

Obj = dict[str, Any]

# Booleans and integers that vanish at their zero value, by definition; all others keep it.
_ZERO_VANISHES: dict[str, str] = {
    "APIServiceSpec": "insecureSkipTLSVerify",
    "AWSElasticBlockStoreVolumeSource": "readOnly partition",
    "AzureFilePersistentVolumeSource": "readOnly",
    "AzureFileVolumeSource": "readOnly",
    "CSIPersistentVolumeSource": "readOnly",
    "CephFSPersistentVolumeSource": "readOnly",
    "CephFSVolumeSource": "readOnly",
    "CinderPersistentVolumeSource": "readOnly",
    "CinderVolumeSource": "readOnly",
    "Condition": "observedGeneration",
    "Container": "stdin stdinOnce tty",
    "ContainerImage": "sizeBytes",
    "ContainerPort": "hostPort",
    "ContainerStateTerminated": "signal",
    "CustomResourceColumnDefinition": "priority",
    "CustomResourceDefinitionCondition": "observedGeneration",
    "CustomResourceDefinitionSpec": "preserveUnknownFields",
    "CustomResourceDefinitionStatus": "observedGeneration",
    "CustomResourceDefinitionVersion": "deprecated",
    "DaemonSetSpec": "minReadySeconds",
    "DaemonSetStatus": "numberAvailable numberUnavailable observedGeneration updatedNumberScheduled",
    "DeploymentSpec": "minReadySeconds paused",
    "DeploymentStatus": "availableReplicas observedGeneration readyReplicas replicas unavailableReplicas "
    "updatedReplicas",
    "EphemeralContainer": "stdin stdinOnce tty",
    "Event": "count deprecatedCount",
    "FCVolumeSource": "readOnly",
    "FlexPersistentVolumeSource": "readOnly",
    "FlexVolumeSource": "readOnly",
    "GCEPersistentDiskVolumeSource": "readOnly partition",
    "GlusterfsPersistentVolumeSource": "readOnly",
    "GlusterfsVolumeSource": "readOnly",
    "HorizontalPodAutoscalerStatus": "currentReplicas",
    "ISCSIPersistentVolumeSource": "chapAuthDiscovery chapAuthSession readOnly",
    "ISCSIVolumeSource": "chapAuthDiscovery chapAuthSession readOnly",
    "JSONSchemaProps": "exclusiveMaximum exclusiveMinimum nullable uniqueItems x-kubernetes-embedded-resource "
    "x-kubernetes-int-or-string",
    "JobStatus": "active failed succeeded",
    "NFSVolumeSource": "readOnly",
    "NodeSpec": "unschedulable",
    "ObjectMeta": "generation",
    "PersistentVolumeClaimVolumeSource": "readOnly",
    "PodCondition": "observedGeneration",
    "PodDisruptionBudgetStatus": "observedGeneration",
    "PodSpec": "hostIPC hostNetwork hostPID",
    "PodStatus": "observedGeneration",
    "PortworxVolumeSource": "readOnly",
    "PriorityClass": "globalDefault",
    "Probe": "failureThreshold initialDelaySeconds periodSeconds successThreshold timeoutSeconds",
    "QuobyteVolumeSource": "readOnly",
    "RBDPersistentVolumeSource": "readOnly",
    "RBDVolumeSource": "readOnly",
    "ReplicaSetSpec": "minReadySeconds",
    "ReplicaSetStatus": "availableReplicas fullyLabeledReplicas observedGeneration readyReplicas",
    "ReplicationControllerSpec": "minReadySeconds",
    "ReplicationControllerStatus": "availableReplicas fullyLabeledReplicas observedGeneration readyReplicas",
    "ScaleIOPersistentVolumeSource": "readOnly sslEnabled",
    "ScaleIOVolumeSource": "readOnly sslEnabled",
    "ServiceBackendPort": "number",
    "ServicePort": "nodePort",
    "ServiceSpec": "healthCheckNodePort publishNotReadyAddresses",
    "StatefulSetSpec": "minReadySeconds",
    "StatefulSetStatus": "currentReplicas observedGeneration readyReplicas updatedReplicas",
    "StorageOSPersistentVolumeSource": "readOnly",
    "StorageOSVolumeSource": "readOnly",
    "VolumeMount": "readOnly",
    "VolumeMountStatus": "readOnly",
}

# Optional strings that keep "", by definition; all other optional strings vanish when empty.
_EMPTY_STAYS: dict[str, str] = {
    "AppArmorProfile": "localhostProfile",
    "AzureDiskVolumeSource": "cachingMode fsType kind",
    "AzureFilePersistentVolumeSource": "secretNamespace",
    "CSIDriverSpec": "fsGroupPolicy",
    "CSIVolumeSource": "fsType",
    "ClusterTrustBundleProjection": "name signerName",
    "Container": "restartPolicy",
    "CronJobSpec": "timeZone",
    "CustomResourceDefinitionVersion": "deprecationWarning",
    "CustomResourceSubresourceScale": "labelSelectorPath",
    "Endpoint": "hostname nodeName zone",
    "EndpointAddress": "nodeName",
    "EphemeralContainer": "restartPolicy",
    "GRPCAction": "service",
    "GlusterfsPersistentVolumeSource": "endpointsNamespace",
    "HPAScalingRules": "selectPolicy",
    "HostPathVolumeSource": "type",
    "ISCSIPersistentVolumeSource": "initiatorName",
    "ISCSIVolumeSource": "initiatorName",
    "IngressClassParametersReference": "apiGroup namespace scope",
    "IngressPortStatus": "error",
    "IngressSpec": "ingressClassName",
    "JSONSchemaProps": "x-kubernetes-list-type x-kubernetes-map-type",
    "JobSpec": "completionMode managedBy podReplacementPolicy",
    "LeaseSpec": "holderIdentity preferredHolder strategy",
    "Lifecycle": "stopSignal",
    "LoadBalancerIngress": "ipMode",
    "LocalVolumeSource": "fsType",
    "MatchResources": "matchPolicy",
    "MutatingAdmissionPolicySpec": "failurePolicy",
    "MutatingWebhook": "failurePolicy matchPolicy reinvocationPolicy sideEffects",
    "NamedRuleWithOperations": "scope",
    "NetworkPolicyPort": "protocol",
    "ParamRef": "parameterNotFoundAction",
    "PersistentVolumeClaimSpec": "storageClassName volumeAttributesClassName volumeMode",
    "PersistentVolumeSpec": "volumeAttributesClassName volumeMode",
    "PodDNSConfigOption": "value",
    "PodDisruptionBudgetSpec": "unhealthyPodEvictionPolicy",
    "PodFailurePolicyOnExitCodesRequirement": "containerName",
    "PodResourceClaim": "resourceClaimName resourceClaimTemplateName",
    "PodSecurityContext": "fsGroupChangePolicy seLinuxChangePolicy supplementalGroupsPolicy",
    "PodSpec": "hostnameOverride preemptionPolicy runtimeClassName",
    "PortStatus": "error",
    "PriorityClass": "preemptionPolicy",
    "RoleRef": "apiGroup",
    "RuleWithOperations": "scope",
    "SeccompProfile": "localhostProfile",
    "SecurityContext": "procMount",
    "ServicePort": "appProtocol",
    "ServiceSpec": "internalTrafficPolicy ipFamilyPolicy loadBalancerClass trafficDistribution",
    "StorageClass": "reclaimPolicy volumeBindingMode",
    "TopologySpreadConstraint": "nodeAffinityPolicy nodeTaintsPolicy",
    "TypedLocalObjectReference": "apiGroup",
    "TypedObjectReference": "apiGroup namespace",
    "ValidatingAdmissionPolicySpec": "failurePolicy",
    "ValidatingWebhook": "failurePolicy matchPolicy sideEffects",
    "VolumeAttachmentSource": "persistentVolumeName",
    "VolumeMount": "mountPropagation recursiveReadOnly",
    "WebhookClientConfig": "url",
    "WindowsSecurityContextOptions": "gmsaCredentialSpec gmsaCredentialSpecName runAsUserName",
    "core.v1.EndpointPort": "appProtocol",
    "discovery.v1.EndpointPort": "name protocol appProtocol",
}

_STRUCT, _STRUCTS, _MAP, _SCALARS, _SCALAR, _QUANTITY, _QUANTITIES, _STRUCT_MAP, _TEXTS = range(9)


class _Plan:
    """What to do with the fields of one definition; only fields that need something are listed."""

    __slots__ = ("_fields", "_name", "_node", "nulls")

    def __init__(self, name: str, node: schema.SchemaNode) -> None:
        self._name = name
        self._node = node
        self.nulls = NULLS.get(name, ())
        """Fields that are shown as null where they are not set."""
        self._fields: dict[str, tuple[int, _Plan | None, bool]] | None = None

    @property
    def fields(self) -> dict[str, tuple[int, "_Plan | None", bool]]:
        """field → (what it is, plan of its parts, may it be empty?); compiled at first use: schemas recurse."""
        if self._fields is None:
            self._fields = dict(self._compile())
        return self._fields

    def _compile(self) -> list[tuple[str, tuple[int, "_Plan | None", bool]]]:
        node = self._node
        definition = self._name.rpartition(".")[2]
        qualified = ".".join(self._name.split(".")[-3:])
        vanishing = (_ZERO_VANISHES.get(qualified) or _ZERO_VANISHES.get(definition, "")).split()
        staying = (_EMPTY_STAYS.get(qualified) or _EMPTY_STAYS.get(definition, "")).split()
        found: list[tuple[str, tuple[int, _Plan | None, bool]]] = []
        for name, child in node.properties.items():
            if name in ("managedFields", "apiVersion", "kind") or (child.open and not child.quantity):
                continue
            child.resolve()
            required = name in node.required
            if child.quantity:
                found.append((name, (_QUANTITY, None, required)))
            elif child.properties:
                found.append((name, (_STRUCT, plan_of(child), True)))
            elif child.items is not None:
                item = child.items.resolve()
                if item.properties:
                    found.append((name, (_STRUCTS, plan_of(item), required)))
                else:
                    found.append((name, (_TEXTS if item.type == "string" else _SCALARS, None, required)))
            elif (values := child.additional_properties) is not None:
                values.resolve()
                if values.quantity:
                    found.append((name, (_QUANTITIES, None, required)))
                elif values.properties:
                    found.append((name, (_STRUCT_MAP, plan_of(values), required)))
                else:
                    found.append((name, (_MAP, None, required)))
            elif not required:
                is_string = child.type == "string" and child.format != "date-time"
                if (is_string and name not in staying) or name in vanishing:
                    found.append((name, (_SCALAR, None, False)))
        return found


def vanishes(definition: str, name: str, node: schema.SchemaNode) -> bool:
    """Does an optional scalar vanish at its zero value? (Otherwise it is a pointer in Go.)"""
    if node.type == "string" and node.format != "date-time":
        return name not in _EMPTY_STAYS.get(definition, "").split()
    return name in _ZERO_VANISHES.get(definition, "").split()


_plans: dict[str, _Plan] = {}


def plan_of(node: schema.SchemaNode) -> _Plan:
    """The plan of a place in a schema: one per referenced definition, so that recursion ends."""
    if not node.ref:
        return _Plan("", node)
    plan = _plans.get(node.ref)
    if plan is None:
        plan = _plans[node.ref] = _Plan(node.ref, node)
    return plan


@cache
def plan_for(group: str, version: str, kind: str) -> _Plan | None:
    """The plan of a built-in kind; None where there is no schema."""
    name = schema.definition_name(group, version, kind)
    node = schema.definition(name) if name else None
    return _Plan(name, node) if node is not None and name is not None else None


@keep_short(8192)
def _canonical(text: str) -> str:
    return quantity.canonical(text)


def canonical_quantity(value: object) -> object:
    """A quantity as upstream writes it; what is no quantity stays, validation tells."""
    if isinstance(value, str):
        text = value
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        text = format(value, "f").rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
    else:
        return value
    try:
        return _canonical(text)
    except ValueError:
        return value


def canonicalize(obj: Obj, plan: _Plan) -> None:
    """Bring the object, in place, into upstream's form."""
    fields = plan.fields
    drop: list[str] = []
    for key, value in obj.items():
        if value is None:
            if key not in plan.nulls:
                drop.append(key)
            continue
        rule = fields.get(key)
        if rule is None:
            continue
        what, parts, may_be_empty = rule
        if what == _SCALAR:
            if not value:
                drop.append(key)
        elif what == _STRUCT:
            if isinstance(value, dict) and parts is not None:
                canonicalize(value, parts)
        elif not value and not may_be_empty:
            drop.append(key)
        elif what == _STRUCTS:
            if isinstance(value, list) and parts is not None:
                for index, item in enumerate(value):
                    if item is None:  # Go reads it as the zero value
                        item = value[index] = {}
                    if isinstance(item, dict):
                        canonicalize(item, parts)
        elif what == _TEXTS:
            if isinstance(value, list) and None in value:
                obj[key] = ["" if item is None else item for item in value]
        elif what == _QUANTITY:
            obj[key] = canonical_quantity(value)
        elif not isinstance(value, dict):
            continue
        elif what == _QUANTITIES:
            for name, amount in value.items():
                value[name] = canonical_quantity(amount)
        elif what == _STRUCT_MAP:
            for name, item in value.items():
                if item is None:
                    item = value[name] = {}
                if isinstance(item, dict) and parts is not None:
                    canonicalize(item, parts)
        elif what == _MAP and None in value.values():
            for name, text in value.items():
                if text is None:
                    value[name] = ""
    for key in drop:
        del obj[key]
    for key in plan.nulls:
        obj.setdefault(key, None)
