"""What changed in a pod's spec, as upstream tells it: a unified diff of its internal structs written as JSON.

Owns how the internal structs differ from the served ones: every member is shown, set or not, under its Go name, in
its own order; what pods say of the host is part of the security context. Called when an update is refused.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any

from api import gojson, schema
from api.schema import SchemaNode
from apiserver.registry.defaults.canonical import vanishes

Obj = dict[str, Any]

_CORE = "io.k8s.api.core.v1."
_HOST = ("hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace", "hostUsers")
# Where the order of members is not that of the served struct. Fields that are not named follow.
_ORDER: Mapping[str, str] = {
    "PodSpec": "volumes initContainers containers ephemeralContainers restartPolicy terminationGracePeriodSeconds "
    "activeDeadlineSeconds dnsPolicy nodeSelector serviceAccountName automountServiceAccountToken nodeName "
    "securityContext imagePullSecrets hostname subdomain setHostnameAsFQDN affinity schedulerName tolerations "
    "hostAliases priorityClassName priority preemptionPolicy dnsConfig readinessGates runtimeClassName overhead "
    "enableServiceLinks topologySpreadConstraints os schedulingGates resourceClaims resources hostnameOverride",
    "PodSecurityContext": "hostNetwork hostPID hostIPC shareProcessNamespace hostUsers seLinuxOptions windowsOptions "
    "runAsUser runAsGroup runAsNonRoot supplementalGroups supplementalGroupsPolicy fsGroup fsGroupChangePolicy sysctls "
    "seccompProfile appArmorProfile seLinuxChangePolicy",
    "SecurityContext": "capabilities privileged seLinuxOptions windowsOptions runAsUser runAsGroup runAsNonRoot "
    "readOnlyRootFilesystem allowPrivilegeEscalation procMount seccompProfile appArmorProfile",
    "Volume": "name hostPath emptyDir gcePersistentDisk awsElasticBlockStore gitRepo secret nfs iscsi glusterfs "
    "persistentVolumeClaim rbd quobyte flexVolume cinder cephfs flocker downwardAPI fc azureFile configMap "
    "vsphereVolume azureDisk photonPersistentDisk projected portworxVolume scaleIO storageos csi ephemeral image",
    "PersistentVolumeSpec": "gcePersistentDisk awsElasticBlockStore hostPath glusterfs nfs rbd quobyte iscsi "
    "flexVolume cinder cephfs fc flocker azureFile vsphereVolume azureDisk photonPersistentDisk portworxVolume scaleIO "
    "local storageos csi",
    "VolumeMount": "name readOnly recursiveReadOnly mountPath subPath mountPropagation subPathExpr",
}
_LEFT_OUT: Mapping[str, tuple[str, ...]] = {
    "PodSpec": (*_HOST, "serviceAccount"),
    # Only its source, which is a struct of its own inside, is ever compared.
    "PersistentVolumeSpec": (
        "accessModes", "capacity", "claimRef", "mountOptions", "nodeAffinity", "persistentVolumeReclaimPolicy",
        "storageClassName", "volumeAttributesClassName", "volumeMode",
    ),
}  # fmt: skip
_NAMES = {
    "apiGroup": "APIGroup",
    "apiVersion": "APIVersion",
    "awsElasticBlockStore": "AWSElasticBlockStore",
    "cephfs": "CephFS",
    "csi": "CSI",
    "dnsConfig": "DNSConfig",
    "dnsPolicy": "DNSPolicy",
    "fc": "FC",
    "fsGroup": "FSGroup",
    "fsGroupChangePolicy": "FSGroupChangePolicy",
    "fsType": "FSType",
    "gcePersistentDisk": "GCEPersistentDisk",
    "gmsaCredentialSpec": "GMSACredentialSpec",
    "gmsaCredentialSpecName": "GMSACredentialSpecName",
    "grpc": "GRPC",
    "httpGet": "HTTPGet",
    "httpHeaders": "HTTPHeaders",
    "ip": "IP",
    "iscsi": "ISCSI",
    "nfs": "NFS",
    "os": "OS",
    "rbd": "RBD",
    "scaleIO": "ScaleIO",
    "seLinuxChangePolicy": "SELinuxChangePolicy",
    "seLinuxOptions": "SELinuxOptions",
    "storageos": "StorageOS",
    "tcpSocket": "TCPSocket",
    "tty": "TTY",
}
_BY_VALUE = {
    ("Container", "resources"),
    ("EphemeralContainer", "resources"),
    ("PersistentVolumeClaimSpec", "resources"),
}
_SELECTOR = "LabelSelector"


def spec_diff(old: Obj, new: Obj) -> str:
    """Two pod specs; empty when they are the same."""
    return _diff("PodSpec", _internal(old), _internal(new))


def ephemeral_diff(old: Obj, new: Obj) -> str:
    """Two ephemeral containers."""
    return _diff("EphemeralContainer", old, new)


def claim_diff(old: Obj, new: Obj) -> str:
    """Two specs of persistent volume claims."""
    return _diff("PersistentVolumeClaimSpec", old, new)


def volume_source_diff(old: Obj, new: Obj) -> str:
    """What two persistent volumes are made of."""
    return _diff("PersistentVolumeSpec", old, new)


def security_value(security: Obj) -> Obj:
    """A container's security context as a value in findings."""
    shown: Obj = _shown(security, schema.definition(f"{_CORE}SecurityContext"))
    return shown


def node_term_value(term: Obj) -> Obj:
    """A node selector term as a value in findings."""
    shown: Obj = _shown(term, schema.definition(f"{_CORE}NodeSelectorTerm"))
    return shown


def volume_affinity_value(affinity: Obj) -> Obj:
    """A volume's node affinity as a value in findings."""
    shown: Obj = _shown(affinity, schema.definition(f"{_CORE}VolumeNodeAffinity"))
    return shown


def template_value(template: Obj) -> Obj:
    """A pod template as a value in findings: its metadata lies on the level of its spec."""
    return {
        **template.get("metadata", {}),
        "Spec": _shown(_internal(template.get("spec") or {}), schema.definition(f"{_CORE}PodSpec")),
    }


def _diff(definition: str, old: Obj, new: Obj) -> str:
    node = schema.definition(_CORE + definition)
    before, after = (_text(_shown(each, node)) for each in (old, new))
    lines = list(difflib.unified_diff(before, after, n=3))
    return "".join(lines[2:])  # upstream's have no names of files


def _text(value: Any) -> list[str]:
    return [f"{line}\n" for line in json.dumps(value, indent=1, ensure_ascii=False).split("\n")]


def _internal(spec: Obj) -> Obj:
    """The spec with what it says of the host in its security context."""
    context = {**(spec.get("securityContext") or {}), **{field: spec[field] for field in _HOST if field in spec}}
    return {**spec, "securityContext": context}


def _shown(value: Any, node: SchemaNode | None) -> Any:
    if isinstance(value, list):
        return [_shown(item, node.items if node is not None else None) for item in value] or None
    if not isinstance(value, dict):
        return value
    node = node.resolve() if node is not None else None
    if node is None or not node.properties or node.name.endswith(f".{_SELECTOR}"):
        # A map; and of label selectors, inside and outside are the same.
        return json.loads(gojson.go_json(value, node)) or None
    return {
        go_name: _shown(value[name], child) if name in value else zero()
        for name, go_name, child, zero in _members_of(node.name)
    }


Member = tuple[str, str, SchemaNode, Callable[[], Any]]


@cache
def _members_of(definition: str) -> tuple[Member, ...]:
    node = schema.definition(definition)
    return tuple(_members(node)) if node is not None else ()


def _members(node: SchemaNode) -> Iterator[Member]:
    kind = node.name.rpartition(".")[2]
    properties = dict(node.properties)
    if kind == "PodSecurityContext":
        spec = schema.definition(f"{_CORE}PodSpec")
        properties |= {name: spec.properties[name] for name in _HOST} if spec is not None else {}
    order = {name: place for place, name in enumerate(_ORDER.get(kind, "").split())}
    served = gojson.places(node.name)
    for name in sorted(properties, key=lambda each: (order.get(each, len(order)), served.get(each, len(served)))):
        if name not in _LEFT_OUT.get(kind, ()):
            child = properties[name].resolve()
            yield name, _NAMES.get(name) or name[:1].upper() + name[1:], child, _zero(kind, name, node, child)


def _zero(kind: str, name: str, node: SchemaNode, child: SchemaNode) -> Callable[[], Any]:
    """What stands where nothing is set."""
    owner = "PodSpec" if name in _HOST else kind
    if child.properties and not child.name.endswith(f".{_SELECTOR}"):
        by_value = (kind, name) in _BY_VALUE or name in node.required
        return (lambda: _shown({}, child)) if by_value else lambda: None
    pointer = child.quantity or not vanishes(owner, name, child)
    if pointer and name not in node.required:
        return lambda: None
    plain = {"string": "", "boolean": False, "integer": 0}.get(child.type)
    return lambda: plain
