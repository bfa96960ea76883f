"""Which resources the cluster has, by plural, singular and group; which of their objects a selector means.

Owns: reading the API server's discovery, and lists of names. Called by `metrics_adapter.registry` and `handlers`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, Protocol
from urllib.parse import quote

from machinery.errors import InternalError, StatusError

DISCOVERY = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
METADATA = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
PAGE = 500
OWN_GROUPS = frozenset({"custom.metrics.k8s.io", "external.metrics.k8s.io", "metrics.k8s.io"})
_SEPARATORS = re.compile(r"[.-]")


class Reader(Protocol):
    """What answers GETs of the API server."""

    async def get(
        self, path: str, params: Mapping[str, str] | None = None, accept: str = "application/json"
    ) -> dict[str, Any]: ...


class Resource(NamedTuple):
    """One kind of object."""

    group: str
    version: str
    plural: str
    singular: str
    kind: str
    namespaced: bool

    def __str__(self) -> str:
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def api_version(self) -> str:
        """As an adapter's answers spell it: `/v1` for the core group."""
        return f"{self.group}/{self.version}"

    def path(self, namespace: str) -> str:
        """Of the collection, in one namespace or in none."""
        root = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        return f"{root}/namespaces/{quote(namespace)}/{self.plural}" if namespace else f"{root}/{self.plural}"


def as_label(group: str) -> str:
    """A group as it may stand in a label's name."""
    return _SEPARATORS.sub("_", group)


class Resources:
    """All that are known, in the API server's order of preference."""

    def __init__(self, known: Iterable[Resource] = ()) -> None:
        self.known = tuple(known)
        self._by_name: dict[str, list[Resource]] = {}
        for each in self.known:
            for name in {each.plural, each.singular}:
                self._by_name.setdefault(name, []).append(each)

    def find(self, name: str, group: str = "") -> Resource | None:
        """By plural or singular; without a group the preferred one. A group may be spelt as in a label."""
        for each in self._by_name.get(name, ()):
            if not group or group in (each.group, as_label(each.group)):
                return each
        return None

    def exactly(self, text: str) -> Resource | None:
        """By `plural` (of the core group, else of whichever has it) or `plural.group`."""
        name, _, group = text.partition(".")
        return self.find(name, group)


async def discover(reader: Reader) -> Resources:
    """Ask the API server. Raises StatusError."""
    found: dict[tuple[str, str], Resource] = {}
    for path in ("/api", "/apis"):
        for item in (await reader.get(path, accept=DISCOVERY)).get("items") or ():
            group = (item.get("metadata") or {}).get("name") or ""
            if group in OWN_GROUPS:
                continue
            for version in item.get("versions") or ():
                for each in version.get("resources") or ():
                    made = _resource(group, version.get("version") or "", each)
                    found.setdefault((group, made.plural), made)
    return Resources(found.values())


def _resource(group: str, version: str, told: Mapping[str, Any]) -> Resource:
    kind = (told.get("responseKind") or {}).get("kind") or ""
    singular = told.get("singularResource") or kind.lower()
    return Resource(group, version, told.get("resource") or "", singular, kind, told.get("scope") == "Namespaced")


async def names(reader: Reader, resource: Resource, namespace: str, selector: str) -> list[str]:
    """The names of the objects that a label selector means. Raises StatusError."""
    params = {"limit": str(PAGE), **({"labelSelector": selector} if selector else {})}
    found: list[str] = []
    while True:
        try:
            answer = await reader.get(resource.path(namespace), params, METADATA)
        except StatusError as error:
            raise InternalError.of("unable to list matching resources") from error
        found += [item["metadata"]["name"] for item in answer.get("items") or ()]
        more = (answer.get("metadata") or {}).get("continue") or ""
        if not more:
            return found
        params["continue"] = more
