"""Discovery: which groups, versions and resources there are, in the legacy and the aggregated form.

Owns: the documents and the version of the server, made of whatever resources are served here and of what aggregated
servers tell of theirs. Documents are made when first asked for; when definitions or backends come and go, another
`Discovery` takes over (`apiserver.crd.catalog`). Called by the REST door.
"""

from __future__ import annotations

import base64
import hashlib
import platform
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
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

# Custom groups come behind the built-in ones.
CUSTOM_GROUP_PRIORITY, CUSTOM_VERSION_PRIORITY = 1000, 100
_BUILT_IN_GROUPS = frozenset(resource.group for resource in RESOURCES if resource.group)

Document = dict[str, Any]

_VERSION = re.compile(r"v([1-9][0-9]*)(?:(alpha|beta)([1-9][0-9]*))?")
_STAGES = {"": 0, "beta": 1, "alpha": 2}


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


def version_rank(name: str) -> tuple[int, int, int, str]:
    """Kubernetes' order of versions: GA before beta before alpha, newer before older, other names last."""
    match = _VERSION.fullmatch(name)
    if match is None:
        return (3, 0, 0, name)
    return (_STAGES[match[2] or ""], -int(match[1]), -int(match[3] or 0), name)


@dataclass(frozen=True)
class RemoteVersion:
    """A group and version that another server answers, as it told of itself.

    `resources`: the entries of apidiscovery.k8s.io/v2. `available`: named by the legacy lists. `fresh`: what is told
    here was heard lately; otherwise clients are told that it is stale.
    """

    group: str
    version: str
    group_priority: int
    version_priority: int
    available: bool = False
    fresh: bool = False
    resources: tuple[Document, ...] = ()


Served = list[Resource] | RemoteVersion


class Discovery:
    """Discovery of a set of resources; documents are kept. Another set is another instance."""

    def __init__(self, resources: Iterable[Resource], remotes: Iterable[RemoteVersion] = ()) -> None:
        self._resources = tuple(resources)
        self._remotes = tuple(remotes)
        self._lists: dict[tuple[str, str], Document] = {}
        self._aggregated: dict[str, bytes] = {}

    @cached_property
    def _versions(self) -> dict[str, dict[str, Served]]:
        """group -> version -> what serves it; versions best first, groups in upstream's order."""
        found: dict[str, dict[str, Served]] = {}
        priorities: dict[str, int] = {}
        for resource in self._resources:
            group = resource.group
            priorities.setdefault(group, group_priority(group))
            served = found.setdefault(group, {}).setdefault(resource.version, [])
            assert isinstance(served, list)
            served.append(resource)
        for remote in self._remotes:
            priorities[remote.group] = max(priorities.get(remote.group, 0), remote.group_priority)
            found.setdefault(remote.group, {})[remote.version] = remote
        return {
            group: dict(sorted(found[group].items(), key=lambda item: _version_order(group, *item)))
            for group in sorted(found, key=lambda name: (-priorities[name], name))
        }

    def group_names(self) -> list[str]:
        """All groups but the core one, in upstream's order."""
        return [name for name in self._versions if name]

    def _listed(self, name: str) -> list[str]:
        """The versions of a group that the legacy lists name."""
        versions = self._versions.get(name, {}).items()
        return [each for each, served in versions if not isinstance(served, RemoteVersion) or served.available]

    def paths(self) -> Iterator[str]:
        """Every group and version as a path."""
        for name, versions in self._versions.items():
            root = f"/apis/{name}" if name else "/api"
            if name:
                yield root
            for each in versions:
                yield f"{root}/{each}"

    def group(self, name: str) -> Document | None:
        """/apis/<group>, or None."""
        if not name or not self._listed(name):
            return None
        return {"kind": "APIGroup", "apiVersion": "v1", **self._group_body(name)}

    def _group_body(self, name: str) -> Document:
        versions = [{"groupVersion": f"{name}/{each}", "version": each} for each in self._listed(name)]
        return {"name": name, "versions": versions, "preferredVersion": versions[0]}

    @cached_property
    def _group_list(self) -> Document:
        groups = [self._group_body(name) for name in self._versions if name and self._listed(name)]
        return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}

    def group_list(self) -> Document:
        """/apis."""
        return self._group_list

    def resource_list(self, group_name: str, version_name: str) -> Document | None:
        """/api/v1 and /apis/<group>/<version>, or None. Backends answer for themselves."""
        found = self._lists.get((group_name, version_name))
        if found is None:
            resources = self._versions.get(group_name, {}).get(version_name)
            if not isinstance(resources, list):
                return None
            found = self._lists[group_name, version_name] = _resource_list(resources)
        return found

    def aggregated(self, root: str) -> bytes:
        """/api or /apis as APIGroupDiscoveryList."""
        found = self._aggregated.get(root)
        if found is None:
            found = self._aggregated[root] = self._aggregate(root)
        return found

    def _aggregate(self, root: str) -> bytes:
        items = []
        for name, versions in self._versions.items():
            if (root == "api") != (not name):
                continue
            meta: Document = {"creationTimestamp": None}
            if name:
                meta["name"] = name
            items.append({"metadata": meta, "versions": [_discovered_version(*item) for item in versions.items()]})
        return msgspec.json.encode(
            {"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items}
        )


def group_priority(group: str) -> int:
    """`groupPriorityMinimum` of a group that this server answers: built-in ones in upstream's order, then custom."""
    if not group:
        return 18000
    if group in _PRIORITY:
        return 17900 - 100 * _PRIORITY.index(group)
    if group in _BUILT_IN_GROUPS:
        return 17900 - 100 * (len(_PRIORITY) + sorted(_BUILT_IN_GROUPS - set(_PRIORITY)).index(group))
    return CUSTOM_GROUP_PRIORITY


def version_priority(group: str, version: str) -> int:
    """`versionPriority` of a version that this server answers."""
    if not group:
        return 1
    if group not in _BUILT_IN_GROUPS:
        return CUSTOM_VERSION_PRIORITY
    match = _VERSION.fullmatch(version)
    return 15 * int(match[1]) if match is not None and not match[2] else 9


def _version_order(group: str, name: str, served: Served) -> tuple[int, tuple[int, int, int, str]]:
    own = served.version_priority if isinstance(served, RemoteVersion) else version_priority(group, name)
    return -own, version_rank(name)


def _discovered_version(name: str, served: Served) -> Document:
    if isinstance(served, RemoteVersion):
        listed = {"resources": list(served.resources)} if served.resources else {}
        return {"version": name, **listed, "freshness": "Current" if served.fresh else "Stale"}
    resources = [_discovered(resource) for resource in sorted(served, key=lambda item: item.plural)]
    return {"version": name, "resources": resources, "freshness": "Current"}


def _resource_list(resources: Sequence[Resource]) -> Document:
    listed: list[Document] = []
    for resource in sorted(resources, key=lambda item: item.plural):
        built_in = resource.verbs == tuple(sorted(resource.verbs))
        entry: Document = {
            "name": resource.plural,
            "singularName": resource.singular,
            "namespaced": resource.namespaced,
            "kind": resource.kind,
            "verbs": list(resource.verbs),
        }
        if resource.short_names:
            entry["shortNames"] = list(resource.short_names)
        if resource.categories:
            entry["categories"] = list(resource.categories)
        if resource.storage_version is not None:
            entry["storageVersionHash"] = _storage_version_hash(*resource.storage_version, resource.kind)
        listed.append(entry)
        # Upstream lists subresources of custom resources in the order of its own registration.
        named = sorted(resource.subresources.items()) if built_in else resource.subresources.items()
        for name, subresource in named:
            listed.append(_subresource_entry(resource, name, subresource))
    document: Document = {
        "kind": "APIResourceList",
        "groupVersion": resources[0].group_version,
        "resources": listed,
    }
    return {"apiVersion": "v1", **document} if resources[0].group else document


def _storage_version_hash(group: str, version: str, kind: str) -> str:
    """What tells storage migrators that objects must be written again (KEP-2343): changes with the stored version."""
    digest = hashlib.sha256(f"{group}/{version}/{kind}".encode()).digest()
    return base64.b64encode(digest[:8]).decode()


def _subresource_entry(resource: Resource, name: str, subresource: Subresource) -> Document:
    entry: Document = {"name": f"{resource.plural}/{name}", "singularName": "", "namespaced": resource.namespaced}
    if subresource.group:
        entry["group"] = subresource.group
    if subresource.version:
        entry["version"] = subresource.version
    return {**entry, "kind": subresource.kind, "verbs": sorted(subresource.verbs)}


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
