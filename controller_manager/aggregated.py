"""Which resources aggregated API servers serve, as discovery tells.

Owns the reading of the aggregated discovery document, and which APIServices lead to other servers. Never reads their
objects: `client` does, over REST, for the gRPC door serves none of them. Called through `kinds.Kinds`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple, Protocol

import msgspec

from api import resources
from api.models import apiregistration_v1
from api.resources import Resource
from client.client import Client
from client.informer import EventHandler, Informer, Informers
from client.kinds import View
from client.rest import RestClient
from client.rest_transport import RestTransport
from machinery.errors import StatusError

_DISCOVERY: Final = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
_API_SERVICES: Final = resources.of(apiregistration_v1.APIService)


class Discovery(Protocol):
    """GETs over REST with a choice of form; `client.rest.RestClient` in a process."""

    async def get(self, path: str, params: Mapping[str, str] | None = None, accept: str = ...) -> dict[str, Any]: ...


class AggregatedAccess(NamedTuple):
    """How aggregated APIs are reached: discovery, and their objects' metadata."""

    discovery: Discovery
    client: Client


def access_by(rest: RestClient) -> AggregatedAccess:
    """Over REST, as the owner of its certificate."""
    return AggregatedAccess(rest, Client(RestTransport(rest)))


class AggregatedResource(Resource):
    """One that another server serves: never equal to one of ours."""


class Discovered(NamedTuple):
    """Resources of the groups that answer, in their preferred versions, and which group versions do not."""

    resources: tuple[AggregatedResource, ...] = ()
    failed: tuple[str, ...] = ()

    @property
    def failure(self) -> str:
        """Upstream's text for the groups that cannot be discovered; "" when all can."""
        if not self.failed:
            return ""
        told = ", ".join(f"{each}: stale GroupVersion discovery: {each}" for each in self.failed)
        return (
            f"Discovery failed for some groups, {len(self.failed)} failing: "
            f"unable to retrieve the complete list of server APIs: {told}"
        )


class _Spec(msgspec.Struct, gc=False):
    group: str = ""
    version: str = ""
    service: dict[str, Any] | None = None


class _Meta(msgspec.Struct, gc=False):
    name: str = ""


class _ApiService(msgspec.Struct, gc=False):
    metadata: _Meta
    spec: _Spec = msgspec.field(default_factory=_Spec)


class _Kind(msgspec.Struct):
    kind: str = ""


class _Found(msgspec.Struct):
    resource: str
    verbs: list[str] = []
    scope: str = ""
    responseKind: _Kind | None = None


class _Version(msgspec.Struct):
    version: str
    freshness: str = ""
    resources: list[_Found] = []


class _Group(msgspec.Struct):
    metadata: _Meta = msgspec.field(default_factory=_Meta)
    versions: list[_Version] = []


class _Document(msgspec.Struct):
    items: list[_Group] = []


def read_discovery(document: Mapping[str, Any], wanted: frozenset[tuple[str, str]]) -> Discovered:
    """What the document tells of the wanted (group, version)s. Raises StatusError when it is no such document."""
    try:
        groups = msgspec.convert(document, _Document).items
    except msgspec.ValidationError as error:
        raise StatusError(f"discovery is not understood: {error}") from error
    found: dict[tuple[str, str], AggregatedResource] = {}
    failed = set(wanted)
    for group in groups:
        name = group.metadata.name
        for version in group.versions:  # the preferred one first
            if (name, version.version) not in wanted or version.freshness == "Stale":
                continue
            failed.discard((name, version.version))
            for each in version.resources:
                made = AggregatedResource(
                    name,
                    version.version,
                    each.resource,
                    each.responseKind.kind if each.responseKind is not None else "",
                    namespaced=each.scope != "Cluster",
                    verbs=tuple(each.verbs),
                )
                found.setdefault((name, each.resource), made)
    return Discovered(tuple(found.values()), tuple(sorted(f"{group}/{version}" for group, version in failed)))


class Aggregated:
    """The aggregated APIs of the cluster; none without access to them."""

    def __init__(self, access: AggregatedAccess | None, informers: Informers) -> None:
        self._access = access
        self.services: Informer[_ApiService] = informers.informer(View(_API_SERVICES, _ApiService))
        self.known: tuple[AggregatedResource, ...] = ()
        """What is served now, and what was by groups that do not answer now."""

    @property
    def client(self) -> Client | None:
        """Reads and deletes the objects of what was discovered."""
        return self._access.client if self._access is not None else None

    async def discover(self) -> Discovered:
        """Ask anew, if any APIService leads to another server. Raises StatusError."""
        found = Discovered()
        if self._access is None:
            return found
        wanted = frozenset(
            (each.spec.group, each.spec.version) for each in self.services.lister.list() if each.spec.service
        )
        if wanted:
            found = read_discovery(await self._access.discovery.get("/apis", accept=_DISCOVERY), wanted)
        silent = tuple(each for each in self.known if each.group_version in found.failed)
        self.known = (*found.resources, *silent)
        return found

    def on_change(self, told: Callable[[], None]) -> None:
        """Call back whenever an APIService may have come, gone or changed."""
        self.services.add_handler(EventHandler(lambda _: told(), lambda _, __: told(), lambda _: told()))
