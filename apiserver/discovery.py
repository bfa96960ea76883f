"""Discovery: which groups, versions and resources there are, in the legacy and the aggregated form.

Owns: the documents and the version of the server, made from `api.resources`. Called by the REST door. Documents are
made once: the built-in table does not change while the server runs.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator
from functools import cache
from typing import Any

import msgspec

from api.resources import RESOURCES, Resource, Subresource

MAJOR, MINOR = "1", "36"
GIT_VERSION = "v1.36.2+nanokube.1"

# Groups in the order in which upstream offers them; others follow by name.
_PRIORITY = (
    "apiregistration.k8s.io",
    "apps",
    "events.k8s.io",
    "authentication.k8s.io",
    "authorization.k8s.io",
    "autoscaling",
    "batch",
    "certificates.k8s.io",
    "networking.k8s.io",
    "policy",
    "rbac.authorization.k8s.io",
    "storage.k8s.io",
    "admissionregistration.k8s.io",
    "apiextensions.k8s.io",
    "scheduling.k8s.io",
    "coordination.k8s.io",
    "node.k8s.io",
    "discovery.k8s.io",
    "flowcontrol.apiserver.k8s.io",
)

Document = dict[str, Any]


def version() -> Document:
    """/version."""
    return {
        "major": MAJOR,
        "minor": MINOR,
        "emulationMajor": MAJOR,
        "emulationMinor": MINOR,
        "minCompatibilityMajor": MAJOR,
        "minCompatibilityMinor": str(int(MINOR) - 1),
        "gitVersion": GIT_VERSION,
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": f"python{platform.python_version()}",
        "compiler": platform.python_implementation().lower(),
        "platform": f"linux/{'amd64' if platform.machine() == 'x86_64' else platform.machine()}",
    }


def api_versions(host: str) -> Document:
    """/api."""
    return {
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": host}],
    }


@cache
def _versions() -> dict[str, dict[str, list[Resource]]]:
    """group -> version -> resources; versions best first, groups in upstream's order."""
    found: dict[str, dict[str, list[Resource]]] = {}
    for resource in RESOURCES:
        found.setdefault(resource.group, {}).setdefault(resource.version, []).append(resource)
    order = {group: position for position, group in enumerate(_PRIORITY)}
    return {
        group: dict(sorted(found[group].items(), key=lambda item: _rank(item[0])))
        for group in sorted(found, key=lambda name: (order.get(name, len(order)), name))
    }


def _rank(version_name: str) -> tuple[int, int, str]:
    """GA before beta before alpha, newer before older."""
    digits, _, stage = version_name[1:].partition("alpha" if "alpha" in version_name else "beta")
    kind = 0 if not stage else 1 if "beta" in version_name else 2
    return (kind, -int(digits) if digits.isdigit() else 0, version_name)


def group_names() -> list[str]:
    """All groups but the core one, in upstream's order."""
    return [name for name in _versions() if name]


def paths() -> Iterator[str]:
    """Every group and version as a path."""
    for name, versions in _versions().items():
        root = f"/apis/{name}" if name else "/api"
        if name:
            yield root
        for each in versions:
            yield f"{root}/{each}"


@cache
def group(name: str) -> Document | None:
    """/apis/<group>, or None."""
    if not name or name not in _versions():
        return None
    return {"kind": "APIGroup", "apiVersion": "v1", **_group_body(name)}


def _group_body(name: str) -> Document:
    versions = [{"groupVersion": f"{name}/{each}", "version": each} for each in _versions()[name]]
    return {"name": name, "versions": versions, "preferredVersion": versions[0]}


@cache
def group_list() -> Document:
    """/apis."""
    groups = [_group_body(name) for name in _versions() if name]
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}


@cache
def resource_list(group_name: str, version_name: str) -> Document | None:
    """/api/v1 and /apis/<group>/<version>, or None."""
    resources = _versions().get(group_name, {}).get(version_name)
    if resources is None:
        return None
    listed: list[Document] = []
    for resource in sorted(resources, key=lambda item: item.plural):
        entry: Document = {
            "name": resource.plural,
            "singularName": resource.singular,
            "namespaced": resource.namespaced,
            "kind": resource.kind,
            "verbs": sorted(resource.verbs),
        }
        if resource.short_names:
            entry["shortNames"] = list(resource.short_names)
        if resource.categories:
            entry["categories"] = list(resource.categories)
        listed.append(entry)
        for name, subresource in sorted(resource.subresources.items()):
            listed.append(_subresource_entry(resource, name, subresource))
    group_version = resources[0].group_version
    document: Document = {"kind": "APIResourceList", "groupVersion": group_version, "resources": listed}
    return document if not group_name else {"apiVersion": "v1", **document}


def _subresource_entry(resource: Resource, name: str, subresource: Subresource) -> Document:
    entry: Document = {"name": f"{resource.plural}/{name}", "singularName": "", "namespaced": resource.namespaced}
    if subresource.group:
        entry["group"] = subresource.group
    if subresource.version:
        entry["version"] = subresource.version
    return {**entry, "kind": subresource.kind, "verbs": sorted(subresource.verbs)}


@cache
def aggregated(root: str) -> bytes:
    """/api or /apis as APIGroupDiscoveryList."""
    items = []
    for name, versions in _versions().items():
        if (root == "api") != (not name):
            continue
        listed = [
            {
                "version": each,
                "resources": [_discovered(resource) for resource in sorted(resources, key=lambda item: item.plural)],
                "freshness": "Current",
            }
            for each, resources in versions.items()
        ]
        meta: Document = {"creationTimestamp": None}
        if name:
            meta["name"] = name
        items.append({"metadata": meta, "versions": listed})
    return msgspec.json.encode(
        {"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items}
    )


def _discovered(resource: Resource) -> Document:
    entry: Document = {
        "resource": resource.plural,
        "responseKind": {"group": "", "version": "", "kind": resource.kind},
        "scope": "Namespaced" if resource.namespaced else "Cluster",
        "singularResource": resource.singular,
        "verbs": sorted(resource.verbs),
    }
    if resource.short_names:
        entry["shortNames"] = list(resource.short_names)
    if resource.categories:
        entry["categories"] = list(resource.categories)
    if resource.subresources:
        entry["subresources"] = [
            {
                "subresource": name,
                "responseKind": {"group": found.group, "version": found.version, "kind": found.kind},
                "verbs": sorted(found.verbs),
            }
            for name, found in sorted(resource.subresources.items())
        ]
    return entry
