"""Where each resource lives in the store: upstream's key layout, odd prefixes included.

Pure. `/registry/<resource>/<namespace>/<name>` (cluster-scoped: `/registry/<resource>/<name>`), so that a real
kube-apiserver with JSON storage finds the objects where it expects them.
"""

from __future__ import annotations

from sys import intern

from machinery.meta import ObjectKey

ROOT = b"/registry/"

_ODD = {
    ("", "replicationcontrollers"): "controllers",
    ("", "endpoints"): "services/endpoints",
    ("", "services"): "services/specs",
    ("", "nodes"): "minions",
    ("networking.k8s.io", "ingresses"): "ingress",
    ("apiregistration.k8s.io", "apiservices"): "apiregistration.k8s.io/apiservices",
    ("apiextensions.k8s.io", "customresourcedefinitions"): "apiextensions.k8s.io/customresourcedefinitions",
}

BUILT_IN_GROUPS = frozenset(
    {
        "",
        "admissionregistration.k8s.io",
        "apps",
        "authentication.k8s.io",
        "authorization.k8s.io",
        "autoscaling",
        "batch",
        "certificates.k8s.io",
        "coordination.k8s.io",
        "discovery.k8s.io",
        "events.k8s.io",
        "flowcontrol.apiserver.k8s.io",
        "internal.apiserver.k8s.io",
        "networking.k8s.io",
        "node.k8s.io",
        "policy",
        "rbac.authorization.k8s.io",
        "resource.k8s.io",
        "scheduling.k8s.io",
        "storage.k8s.io",
        "storagemigration.k8s.io",
    }
)


def resource_prefix(group: str, plural: str) -> bytes:
    """`/registry/…/` of a resource; custom resources live under their group."""
    odd = _ODD.get((group, plural))
    if odd is not None:
        return ROOT + odd.encode() + b"/"
    if group in BUILT_IN_GROUPS:
        return ROOT + plural.encode() + b"/"
    return ROOT + f"{group}/{plural}/".encode()


def suffix(namespace: str, name: str) -> str:
    """The part of a key behind the resource's prefix."""
    return f"{namespace}/{name}" if namespace else name


def parse_suffix(text: str) -> ObjectKey:
    """Inverse of `suffix`."""
    namespace, slash, name = text.partition("/")
    return ObjectKey(intern(namespace), name) if slash else ObjectKey("", namespace)  # a namespace's text exists once
