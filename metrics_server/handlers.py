"""The paths of the metrics API and what each answers.

Owns: reading path and query, selection by labels and names, and which form the answer takes. How a request is judged
before that is for `aggregated.handlers`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple
from urllib.parse import unquote

import msgspec

from aggregated.access import Access
from aggregated.door import Asked, Told
from aggregated.handlers import Documents, Query, verb_of, watches
from aggregated.handlers import Handlers as Judged
from machinery.clock import Clock
from machinery.errors import BadRequest, NotFound
from machinery.selectors import FieldSelector, LabelSelector
from metrics_server import documents, objects
from metrics_server.cluster import Cluster, Meta, Node, Pod
from metrics_server.objects import API_VERSION, GROUP, VERSION
from metrics_server.storage import Storage

Document = dict[str, Any]
FIELDS = ("metadata.name", "metadata.namespace")
NOT_READY = "metric-storage-ready"
DOCUMENTS: Documents = {
    "/apis": documents.group_list,
    f"/apis/{GROUP}": documents.api_group,
    f"/apis/{API_VERSION}": documents.resource_list,
    "/openapi/v2": documents.openapi_v2,
    "/openapi/v3": documents.openapi_index,
    documents.OPENAPI_V3: documents.openapi_v3,
}


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


class Handlers(Judged):
    """Answers requests. Raises StatusError."""

    def __init__(self, cluster: Cluster, storage: Storage, access: Access, clock: Clock) -> None:
        super().__init__(access)
        self._cluster = cluster
        self._storage = storage
        self._clock = clock

    @property
    def unready(self) -> str:
        return "" if self._storage.ready else NOT_READY

    def documents(self) -> Documents:
        return DOCUMENTS

    def aggregated_discovery(self) -> Document:
        return documents.aggregated_discovery()

    def attributes(self, method: str, path: str, query: Query) -> Mapping[str, str] | None:
        wanted = read_path(path) if path.startswith(f"/apis/{API_VERSION}/") else None
        if wanted is None:
            return None
        verb = verb_of(method, single=bool(wanted.name), watch=watches(query))
        return {"verb": verb, "group": GROUP, "version": VERSION, **wanted._asdict()}

    async def answer(self, asked: Asked, attributes: Mapping[str, str], query: Query) -> Told:
        return self._resource(asked, Wanted(*(attributes[key] for key in Wanted._fields)), query)

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
