"""Makes `machinery/data/protobuf-fields.json.gz`, the field table that the protobuf codec reads.

Run by hand when the Kubernetes version changes: ``python -m api.protobuf_generate FIELDS.json`` where FIELDS.json
maps each message of upstream's generated.proto to ``{field number: [name, type]}``. The schema adds what the .proto
does not say: the JSON spelling, which members are inlined, and which fields JSON requires. The one thing neither
source knows, whether a Go field is a pointer, is the table below. Never imported by a running component.
"""

from __future__ import annotations

import argparse
import gzip
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from api import schema

OUTPUT = Path(__file__).resolve().parent.parent / "machinery" / "data" / "protobuf-fields.json.gz"

_SCALARS = {"string": "s", "bool": "b", "int32": "i", "int64": "l", "double": "d", "bytes": "y"}
_SPECIAL = {
    "k8s.io.apimachinery.pkg.api.resource.Quantity": "Q",
    "k8s.io.apimachinery.pkg.apis.meta.v1.Time": "T",
    "k8s.io.apimachinery.pkg.apis.meta.v1.MicroTime": "U",
    "k8s.io.apimachinery.pkg.apis.meta.v1.Duration": "D",
    "k8s.io.apimachinery.pkg.util.intstr.IntOrString": "I",
    "k8s.io.apimachinery.pkg.runtime.RawExtension": "R",
    "k8s.io.apimachinery.pkg.apis.meta.v1.FieldsV1": "R",
}
_SPECIAL_SUFFIXES = {
    ".apiextensions.v1.JSON": "R",
    ".apiextensions.v1beta1.JSON": "R",
    ".ExtraValue": "L",
    ".Verbs": "L",
    ".JSONSchemaPropsOrArray": "A",
    ".JSONSchemaPropsOrBool": "B",
    ".JSONSchemaPropsOrStringArray": "S",
}
# Numbers and booleans that Go keeps by value with `omitempty`: their zero is on the wire but not in JSON. Every other
# optional number or boolean is a pointer, whose zero was meant. By message name, for all versions of a group.
_BY_VALUE = """
APIServiceSpec: insecureSkipTLSVerify
AWSElasticBlockStoreVolumeSource: partition readOnly
AzureFilePersistentVolumeSource: readOnly
AzureFileVolumeSource: readOnly
CSIPersistentVolumeSource: readOnly
CephFSPersistentVolumeSource: readOnly
CephFSVolumeSource: readOnly
CinderPersistentVolumeSource: readOnly
CinderVolumeSource: readOnly
Condition: observedGeneration
Container: stdin stdinOnce tty
ContainerImage: sizeBytes
ContainerPort: hostPort
ContainerStateTerminated: signal
CustomResourceColumnDefinition: priority
CustomResourceDefinitionCondition: observedGeneration
CustomResourceDefinitionSpec: preserveUnknownFields
CustomResourceDefinitionStatus: observedGeneration
CustomResourceDefinitionVersion: deprecated
DaemonSetSpec: minReadySeconds
DaemonSetStatus: observedGeneration updatedNumberScheduled numberAvailable numberUnavailable
DeploymentSpec: minReadySeconds paused
DeploymentStatus: observedGeneration replicas updatedReplicas availableReplicas unavailableReplicas readyReplicas
DeviceSubRequest: count
EphemeralContainerCommon: stdin stdinOnce tty
Event: count deprecatedCount
EventSeries: count
ExactDeviceRequest: count
FCVolumeSource: readOnly
FlexPersistentVolumeSource: readOnly
FlexVolumeSource: readOnly
GCEPersistentDiskVolumeSource: partition readOnly
GlusterfsVolumeSource: readOnly
HorizontalPodAutoscalerStatus: currentReplicas
ISCSIPersistentVolumeSource: readOnly chapAuthDiscovery chapAuthSession
ISCSIVolumeSource: readOnly chapAuthDiscovery chapAuthSession
JSONSchemaProps: exclusiveMaximum exclusiveMinimum uniqueItems nullable
JSONSchemaProps: xKubernetesEmbeddedResource xKubernetesIntOrString
JobStatus: active succeeded failed
ListOptions: watch limit allowWatchBookmarks
NFSVolumeSource: readOnly
NodeSpec: unschedulable
ObjectMeta: generation
PersistentVolumeClaimVolumeSource: readOnly
PodAttachOptions: stdin stdout stderr tty
PodCondition: observedGeneration
PodDisruptionBudgetStatus: observedGeneration
PodExecOptions: stdin stdout stderr tty
PodLogOptions: follow previous timestamps insecureSkipTLSVerifyBackend
PodSpec: hostNetwork hostPID hostIPC
PodStatus: observedGeneration
PortworxVolumeSource: readOnly
PriorityClass: globalDefault
Probe: initialDelaySeconds timeoutSeconds periodSeconds successThreshold failureThreshold
QuobyteVolumeSource: readOnly
RBDPersistentVolumeSource: readOnly
RBDVolumeSource: readOnly
ReplicaSetSpec: minReadySeconds
ReplicaSetStatus: fullyLabeledReplicas observedGeneration readyReplicas availableReplicas
ReplicationControllerSpec: minReadySeconds
ReplicationControllerStatus: fullyLabeledReplicas observedGeneration readyReplicas availableReplicas
ResourcePolicyRule: clusterScope
ScaleIOPersistentVolumeSource: sslEnabled readOnly
ScaleIOVolumeSource: sslEnabled readOnly
ScaleSpec: replicas
ServiceBackendPort: number
ServicePort: nodePort
ServiceSpec: healthCheckNodePort publishNotReadyAddresses
StatefulSetSpec: minReadySeconds
StatefulSetStatus: observedGeneration readyReplicas currentReplicas updatedReplicas
Status: code
StatusDetails: retryAfterSeconds
StorageOSPersistentVolumeSource: readOnly
StorageOSVolumeSource: readOnly
SubjectAccessReviewStatus: denied
TokenReviewStatus: authenticated
ValidatingAdmissionPolicyStatus: observedGeneration
VolumeMount: readOnly
VolumeMountStatus: readOnly
"""
# Strings that Go keeps as pointers and whose empty value means something.
_STRING_POINTERS = {
    ("PersistentVolumeClaimSpec", "storageClassName"),
    ("PersistentVolumeClaimSpec", "volumeAttributesClassName"),
    ("HostPathVolumeSource", "type"),
    ("LeaseSpec", "holderIdentity"),
    ("EndpointPort", "name"),
}


def _type_code(proto_type: str, package: str) -> str:
    if proto_type.startswith("repeated "):
        return "*" + _type_code(proto_type[len("repeated ") :], package)
    if proto_type.startswith("map<string,"):
        return "%" + _type_code(proto_type[len("map<string,") : -1].strip(), package)
    if proto_type in _SCALARS:
        return _SCALARS[proto_type]
    name = proto_type.lstrip(".")
    if not name.startswith("k8s.io."):
        name = f"{package}.{name}"
    if name in _SPECIAL:
        return _SPECIAL[name]
    for suffix, code in _SPECIAL_SUFFIXES.items():
        if name.endswith(suffix):
            return code + (f"@{package}.JSONSchemaProps" if code in "ABS" else "")
    return "@" + name


def _json_name(name: str, properties: Sequence[str], is_message: bool) -> str:
    """The member's JSON spelling; empty when Go inlines it."""
    if not properties or name in properties:
        return name
    by_shape = {_shape(candidate): candidate for candidate in properties}
    found = by_shape.get(_shape(name))
    if found is not None:
        return found
    return "" if is_message else name


def _shape(name: str) -> str:
    return name.replace("-", "").lstrip("$").lower()


def compile_fields(messages: dict[str, dict[str, list[str]]]) -> dict[str, dict[str, list[str]]]:
    """`{message: {number: [JSON name, type code]}}`; a trailing ``?`` drops the zero value, a leading ``*`` repeats,
    ``%`` is a map from strings, ``@name`` another message, other letters are in `machinery.protobuf`."""
    definitions = {
        "k8s.io." + name.removeprefix("io.k8s.").replace("-", "_"): name for name in schema.definition_names()
    }
    by_value = {
        (message, field)
        for message, _, fields in (line.partition(": ") for line in _BY_VALUE.strip().splitlines())
        for field in fields.split()
    }
    compiled: dict[str, dict[str, list[str]]] = {}
    for message, fields in sorted(messages.items()):
        package, _, short = message.rpartition(".")
        node = schema.definition(definitions[message]) if message in definitions else None
        properties = [*node.properties] if node is not None else []
        rows: dict[str, list[str]] = {}
        for number, (name, proto_type) in sorted(fields.items(), key=lambda item: int(item[0])):
            code = _type_code(proto_type, package)
            spelled = _json_name(name, properties, code.startswith("@"))
            required = node is not None and spelled in node.required
            if code in ("s", "y"):
                drops_zero = not required and (short, spelled) not in _STRING_POINTERS
            else:
                drops_zero = (short, name) in by_value and not required
            rows[number] = [spelled, code + ("?" if drops_zero else "")]
        compiled[message] = rows
    return compiled


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="api.protobuf_generate", description=__doc__)
    parser.add_argument("fields", type=Path, help="JSON: message -> field number -> [name, type]")
    parser.add_argument("--check", action="store_true", help="only say whether the checked-in table is current")
    args = parser.parse_args(argv)
    compiled = compile_fields(json.loads(args.fields.read_bytes()))
    text = json.dumps(compiled, separators=(",", ":"), sort_keys=False).encode()
    if args.check:
        if not OUTPUT.exists() or gzip.decompress(OUTPUT.read_bytes()) != text:
            print(f"{OUTPUT.name} is stale: run python -m api.protobuf_generate FIELDS.json", file=sys.stderr)
            return 1
        return 0
    OUTPUT.parent.mkdir(exist_ok=True)
    OUTPUT.write_bytes(gzip.compress(text, 9, mtime=0))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
