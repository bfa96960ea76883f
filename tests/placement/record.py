"""Record a running cluster: `python -m tests.placement.record --about "what it is" FILE` (kubectl's current context).

Kept is what scheduling depends on, and nothing that tells of users: no images' digests, no annotations, no environment.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from tests.harness.nanokube import kubectl

Object = dict[str, Any]
Reader = Callable[..., str]
"""Runs kubectl with these arguments; its output."""

_POD_SPEC = (
    "nodeName",
    "schedulerName",
    "priority",
    "preemptionPolicy",
    "nodeSelector",
    "affinity",
    "tolerations",
    "topologySpreadConstraints",
    "overhead",
    "hostNetwork",
    "resources",
)
_CLAIM_NOTES = ("pv.kubernetes.io/bind-completed", "volume.kubernetes.io/selected-node")


def _part(obj: Mapping[str, Any], *names: str) -> Object:
    return {name: obj[name] for name in names if obj.get(name) not in (None, {}, [], "")}


def _meta(obj: Object, *names: str) -> Object:
    return _part(obj["metadata"], "name", "namespace", *names)


def _container(given: Object) -> Object:
    requests = given.get("resources", {}).get("requests")
    ports = [each for each in given.get("ports", ()) if each.get("hostPort")]
    return {
        **_part(given, "name", "image", "restartPolicy"),
        **({"resources": {"requests": requests}} if requests else {}),
        **({"ports": ports} if ports else {}),
    }


def _node(obj: Object) -> Object:
    status = _part(obj["status"], "allocatable")
    images = [_part(each, "names", "sizeBytes") for each in obj["status"].get("images", ())]
    return {
        "metadata": _meta(obj, "labels"),
        "spec": _part(obj.get("spec", {}), "unschedulable", "taints"),
        "status": {**status, **({"images": images} if images else {})},
    }


def _pod(obj: Object) -> Object:
    spec, metadata = obj["spec"], _meta(obj, "uid", "labels", "deletionTimestamp")
    owners = [each for each in obj["metadata"].get("ownerReferences", ()) if each.get("controller")]
    if owners:
        metadata["ownerReferences"] = [
            _part(each, "apiVersion", "kind", "name", "uid", "controller") for each in owners
        ]
    made: Object = {**_part(spec, *_POD_SPEC), "containers": [_container(each) for each in spec["containers"]]}
    if spec.get("initContainers"):
        made["initContainers"] = [_container(each) for each in spec["initContainers"]]
    volumes = [each for each in spec.get("volumes", ()) if "persistentVolumeClaim" in each or "ephemeral" in each]
    if volumes:
        made["volumes"] = volumes
    return {"metadata": metadata, "spec": made, "status": _part(obj["status"], "phase", "nominatedNodeName")}


def _selecting(obj: Object) -> Object:
    return {"metadata": _meta(obj), "spec": {"selector": obj["spec"].get("selector")}}


def _claim(obj: Object) -> Object:
    metadata = _meta(obj, "uid")
    notes = _part(obj["metadata"].get("annotations", {}), *_CLAIM_NOTES)
    spec = _part(obj["spec"], "accessModes", "resources", "storageClassName", "volumeName", "volumeMode")
    return {"metadata": {**metadata, "annotations": notes}, "spec": spec, "status": _part(obj["status"], "phase")}


def _volume(obj: Object) -> Object:
    spec = dict(obj["spec"])
    if "claimRef" in spec:
        spec["claimRef"] = _part(spec["claimRef"], "namespace", "name", "uid")
    return {"metadata": _meta(obj, "labels"), "spec": spec, "status": _part(obj["status"], "phase")}


def _whole(obj: Object) -> Object:
    plain = {name: value for name, value in obj.items() if name not in ("apiVersion", "kind", "metadata", "status")}
    return {"metadata": _meta(obj), **plain}


KINDS: dict[str, tuple[str, Callable[[Object], Object]]] = {
    "namespaces": ("namespaces", lambda obj: {"metadata": _meta(obj, "labels")}),
    "nodes": ("nodes", _node),
    "services": ("services", _selecting),
    "replicationControllers": ("replicationcontrollers", _selecting),
    "replicaSets": ("replicasets.apps", _selecting),
    "statefulSets": ("statefulsets.apps", _selecting),
    "storageClasses": ("storageclasses.storage.k8s.io", _whole),
    "volumes": ("persistentvolumes", _volume),
    "claims": ("persistentvolumeclaims", _claim),
    "csiNodes": ("csinodes.storage.k8s.io", _whole),
    "csiDrivers": ("csidrivers.storage.k8s.io", _whole),
    "csiCapacities": ("csistoragecapacities.storage.k8s.io", _whole),
    "pods": ("pods", _pod),
}
"""By the name in the file: kubectl's name of the resource, and what is kept of an object."""


def record(run: Reader, about: str) -> Object:
    """What decides about placement in a cluster now. Pods that have ended are left out."""
    found: Object = {"about": about}
    for name, (resource, keep) in KINDS.items():
        items = json.loads(run("get", resource, "--all-namespaces", "-o", "json"))["items"]
        alive = [each for each in items if each.get("status", {}).get("phase") not in ("Succeeded", "Failed")]
        found[name] = [keep(each) for each in alive]
    return found


def text_of(found: Object) -> str:
    """JSON with a line for each object."""
    lines = [f'"about": {json.dumps(found["about"])}']
    for name in KINDS:
        items: Iterable[str] = (json.dumps(each, sort_keys=True, separators=(",", ":")) for each in found[name])
        lines.append(f'"{name}": [\n' + ",\n".join(items) + "\n]")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _current(*arguments: str) -> str:
    done = subprocess.run([kubectl(), *arguments], capture_output=True, text=True, check=True, timeout=120)
    return done.stdout


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.placement.record", description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--about", required=True, help="one line: what kind of cluster this is")
    args = parser.parse_args()
    args.file.write_text(text_of(record(_current, args.about)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
