"""What a machine needs to join with a bootstrap token, as kubeadm sets it up: cluster-info and three bindings.

Owns these objects; created at start where missing, like all of `bootstrap.py`, which calls this. The names are
kubeadm's, so that its documentation (and its `join`) finds what it expects.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

RBAC = "rbac.authorization.k8s.io"
READER = "kubeadm:bootstrap-signer-clusterinfo"
JOINERS = "system:bootstrappers:kubeadm:default-node-token"
_CSR = "system:certificates.k8s.io:certificatesigningrequests"

Key = tuple[str, str, str]


def kubeconfig(server: str, ca: bytes) -> str:
    """A kubeconfig without credentials: where the cluster is and whom to trust (JSON is YAML)."""
    cluster = {"certificate-authority-data": base64.b64encode(ca).decode(), "server": server}
    document: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "", "cluster": cluster}],
        "contexts": None,
        "current-context": "",
        "preferences": {},
        "users": None,
    }
    return json.dumps(document, indent=2) + "\n"


def objects(advertise: str, port: int, ca: Path) -> Iterator[tuple[Key, str, dict[str, Any]]]:
    """(resource key, namespace, object). Raises OSError when the authority's certificate cannot be read."""
    host = f"[{advertise}]" if ":" in advertise else advertise
    data = {"kubeconfig": kubeconfig(f"https://{host}:{port}", ca.read_bytes())}
    meta = {"name": "cluster-info", "namespace": "kube-public"}
    yield (
        ("", "v1", "configmaps"),
        "kube-public",
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": data},
    )
    rule = {"verbs": ["get"], "apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["cluster-info"]}
    role = {"apiVersion": f"{RBAC}/v1", "kind": "Role", "metadata": {"name": READER, "namespace": "kube-public"}}
    yield (RBAC, "v1", "roles"), "kube-public", {**role, "rules": [rule]}
    anybody = {"kind": "User", "apiGroup": RBAC, "name": "system:anonymous"}
    yield (RBAC, "v1", "rolebindings"), "kube-public", _binding(READER, "Role", READER, anybody, "kube-public")
    for name, target, group in (
        ("kubeadm:kubelet-bootstrap", "system:node-bootstrapper", JOINERS),
        ("kubeadm:node-autoapprove-bootstrap", f"{_CSR}:nodeclient", JOINERS),
        ("kubeadm:node-autoapprove-certificate-rotation", f"{_CSR}:selfnodeclient", "system:nodes"),
    ):
        subject = {"kind": "Group", "apiGroup": RBAC, "name": group}
        yield (RBAC, "v1", "clusterrolebindings"), "", _binding(name, "ClusterRole", target, subject)


def _binding(name: str, kind: str, role: str, subject: dict[str, str], namespace: str = "") -> dict[str, Any]:
    meta = {"name": name, **({"namespace": namespace} if namespace else {})}
    return {
        "apiVersion": f"{RBAC}/v1",
        "kind": "RoleBinding" if namespace else "ClusterRoleBinding",
        "metadata": meta,
        "subjects": [subject],
        "roleRef": {"apiGroup": RBAC, "kind": kind, "name": role},
    }
