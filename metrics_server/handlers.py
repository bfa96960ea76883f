"""The paths of the metrics API and what each answers.

Owns: reading path and query, selection by labels and names, and which form the answer takes. Called by the door.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

import msgspec

from machinery.clock import Clock
from machinery.errors import BadRequest, MethodNotAllowed, NotFound
from machinery.selectors import FieldSelector, LabelSelector
from metrics_server import documents, objects
from metrics_server.access import Access
from metrics_server.cluster import Cluster, Meta, Node, Pod
from metrics_server.door import Asked, Told
from metrics_server.objects import API_VERSION, GROUP, VERSION
from metrics_server.storage import Storage

Document = dict[str, Any]
ALWAYS_ALLOWED = ("/healthz", "/livez", "/readyz")
FIELDS = ("metadata.name", "metadata.namespace")
NOT_READY = "metric-storage-ready"


class Wanted(NamedTuple):
    """A path below the group version."""

    resource: str
    namespace: str = ""
    name: str = ""


def read_path(path: str) -> Wanted | None:
    """nodes, nodes/N, pods, namespaces/NS/pods, namespaces/NS/pods/N; None for any other."""
    match [unquote(part) for part in path.removeprefix(f"/apis/{API_VERSION}/").strip("/").split("/")]:
        case ["nodes" | "pods" as resource]:
            return Wanted(resource)
        case ["nodes", name]:
            return Wanted("nodes", "", name)
        case ["namespaces", namespace, "pods"]:
            return Wanted("pods", namespace)
        case ["namespaces", namespace, "pods", name]:
            return Wanted("pods", namespace, name)
    return None


class Handlers:
    """Answers requests. Raises StatusError."""

    def __init__(self, cluster: Cluster, storage: Storage, access: Access, clock: Clock) -> None:
        self._cluster = cluster
        self._storage = storage
        self._access = access
        self._clock = clock
        self._documents: Mapping[str, Callable[[], Document | bytes]] = {
            "/apis": documents.group_list,
            f"/apis/{GROUP}": documents.api_group,
            f"/apis/{API_VERSION}": documents.resource_list,
            "/openapi/v2": documents.openapi_v2,
            "/openapi/v3": documents.openapi_index,
            documents.OPENAPI_V3: documents.openapi_v3,
        }

    async def __call__(self, asked: Asked) -> Told:
        parts = urlsplit(asked.target)
        path = parts.path.rstrip("/") or "/"
        if path in ALWAYS_ALLOWED:
            return self._health(path)
        user = await self._access.authenticate(asked)
        query = parse_qs(parts.query, keep_blank_values=True)
        wanted = read_path(path) if path.startswith(f"/apis/{API_VERSION}/") else None
        if wanted is None:
            await self._access.authorize(user, {}, path)
            return self._document(asked, path)
        watch = query.get("watch", [""])[0] in ("1", "true")
        verb = _verb(asked.method, wanted, watch=watch)
        attributes = {"verb": verb, "group": GROUP, "version": VERSION, **wanted._asdict()}
        await self._access.authorize(user, attributes)
        if verb not in ("get", "list"):
            raise MethodNotAllowed
        return self._resource(asked, wanted, query)

    # -- everything but resources -------------------------------------------------------------------------------------

    def _health(self, path: str) -> Told:
        if path == "/readyz" and not self._storage.ready:
            text = f"[-]{NOT_READY} failed: reason withheld\nreadyz check failed\n"
            return Told(500, text.encode(), "text/plain; charset=utf-8")
        return Told(200, b"ok", "text/plain; charset=utf-8")

    def _document(self, asked: Asked, path: str) -> Told:
        found = self._documents.get(path)
        if found is None:
            raise NotFound.path()
        if asked.method not in ("GET", "HEAD"):
            raise MethodNotAllowed
        if path == "/apis" and "as=APIGroupDiscoveryList" in asked.header(b"accept"):
            return Told(200, msgspec.json.encode(documents.aggregated_discovery()), documents.DISCOVERY_TYPE)
        body = found()
        return Told(200, body if isinstance(body, bytes) else msgspec.json.encode(body))

    # -- resources ----------------------------------------------------------------------------------------------------

    def _resource(self, asked: Asked, wanted: Wanted, query: Mapping[str, list[str]]) -> Told:
        if wanted.name:
            items = [self._node(wanted.name) if wanted.resource == "nodes" else self._pod(wanted)]
        else:
            items = self._list(wanted, query)
        version = _table_version(asked.header(b"accept"))
        if version:
            include = query.get("includeObject", ["Metadata"])[0] or "Metadata"
            return Told(200, msgspec.json.encode(objects.as_table(items, version, include)))
        kind = "NodeMetrics" if wanted.resource == "nodes" else "PodMetrics"
        return Told(200, msgspec.json.encode(items[0] if wanted.name else objects.as_list(kind, items)))

    def _node(self, name: str) -> Document:
        node = self._cluster.node(name)
        if node is None:
            raise NotFound.of("nodes", name)
        found = self._node_metrics(node)
        if found is None:
            raise NotFound.of("nodemetrics", name, GROUP)
        return found

    def _pod(self, wanted: Wanted) -> Document:
        pod = self._cluster.pod(wanted.namespace, wanted.name)
        if pod is None:
            raise NotFound.of("pods", f"{wanted.namespace}/{wanted.name}")
        found = self._pod_metrics(pod)
        if found is None:
            raise NotFound.of("podmetrics", f"{wanted.namespace}/{wanted.name}", GROUP)
        return found

    def _list(self, wanted: Wanted, query: Mapping[str, list[str]]) -> list[Document]:
        """What is known of the selected objects, by namespace and name."""
        matches = _selection(query)
        made: list[Document | None]
        if wanted.resource == "nodes":
            nodes = sorted(self._cluster.nodes.lister.list(), key=lambda node: node.metadata.name)
            made = [self._node_metrics(node) for node in nodes if matches(node.metadata)]
        else:
            pods = self._cluster.pods.lister.list(wanted.namespace or None)
            chosen = sorted(
                (pod for pod in pods if matches(pod.metadata)),
                key=lambda pod: (pod.metadata.namespace, pod.metadata.name),
            )
            made = [self._pod_metrics(pod) for pod in chosen]
        return [each for each in made if each is not None]

    def _node_metrics(self, node: Node) -> Document | None:
        meta = node.metadata
        found = self._storage.node(meta.name)
        return objects.node_metrics(meta.name, meta.labels, found, self._clock.now()) if found is not None else None

    def _pod_metrics(self, pod: Pod) -> Document | None:
        meta = pod.metadata
        found = self._storage.pod(meta.namespace, meta.name) if pod.status.phase == "Running" else None
        if not found:
            return None
        return objects.pod_metrics(meta.namespace, meta.name, meta.labels, found, self._clock.now())


def _verb(method: str, wanted: Wanted, *, watch: bool) -> str:
    if method in ("GET", "HEAD"):
        return "get" if wanted.name else "watch" if watch else "list"
    named = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}.get(method, method.lower())
    return "deletecollection" if named == "delete" and not wanted.name else named


def _selection(query: Mapping[str, list[str]]) -> Callable[[Meta], bool]:
    """Raises BadRequest."""
    try:
        labels = LabelSelector.parse(query.get("labelSelector", [""])[0])
        fields = FieldSelector.parse(query.get("fieldSelector", [""])[0])
    except ValueError as error:
        raise BadRequest(str(error)) from error
    for requirement in fields.requirements:
        if requirement.field not in FIELDS:
            raise BadRequest(f'"{requirement.field}" is not a known field selector: only "{FIELDS[0]}", "{FIELDS[1]}"')

    def matches(meta: Meta) -> bool:
        values = {"metadata.name": meta.name, "metadata.namespace": meta.namespace}
        return labels.matches(meta.labels or {}) and fields.matches(lambda field: values[field])

    return matches


def _table_version(accept: str) -> str:
    """The version of meta.k8s.io in which a Table is liked best, or ""."""
    for media in accept.split(","):
        kind, *rest = (part.strip() for part in media.split(";"))
        told = dict(part.partition("=")[::2] for part in rest)
        if kind == "application/json" and told.get("as") == "Table" and told.get("g") == "meta.k8s.io":
            return told.get("v", "v1") if told.get("v", "v1") in ("v1", "v1beta1") else ""
        if kind in ("application/json", "*/*", "application/*") and "as" not in told:
            return ""
    return ""
