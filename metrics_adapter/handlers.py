"""The paths of both metrics APIs and what each answers.

Owns: reading paths and selectors, asking Prometheus about the objects they mean, and the words of refusals, which are
upstream's. How a request is judged before that is for `aggregated.handlers`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple
from urllib.parse import unquote

import msgspec

from aggregated.access import Access
from aggregated.door import Asked, Told
from aggregated.handlers import Documents, Query, verb_of, watches
from aggregated.handlers import Handlers as Judged
from machinery.errors import BadRequest, InternalError, NotFound
from machinery.selectors import LabelSelector
from metrics_adapter import documents, objects, queries
from metrics_adapter import resources as cluster
from metrics_adapter.objects import CUSTOM, CUSTOM_VERSIONS, EXTERNAL, EXTERNAL_VERSION
from metrics_adapter.prometheus import FAILED, Prometheus, Sample
from metrics_adapter.registry import Metric, Registry, Source, label_of
from metrics_adapter.resources import Reader, Resource

Document = dict[str, Any]
NOT_LISTED = "metrics-listed"
EVERY = "*"


class Wanted(NamedTuple):
    """A path below a group version, as authorization sees it; `subresource` is the metric unless the name is."""

    group: str
    version: str
    namespace: str
    resource: str
    name: str
    subresource: str


def read_path(path: str) -> Wanted | None:
    """[namespaces/NS/]RESOURCE/NAME/METRIC and namespaces/NS/metrics/METRIC, or namespaces/NS/METRIC; else None."""
    parts = [unquote(part) for part in path.strip("/").split("/")]
    if len(parts) < 4 or parts[0] != "apis" or not all(parts):
        return None
    _, group, version, *rest = parts
    match rest:
        case ["namespaces", namespace, metric] if (group, version) == (EXTERNAL, EXTERNAL_VERSION):
            return Wanted(group, version, namespace, metric, "", "")
        case _ if group != CUSTOM or version not in CUSTOM_VERSIONS:
            return None
        case ["namespaces", namespace, "metrics", metric]:
            return Wanted(group, version, namespace, "metrics", metric, "")
        case ["namespaces", namespace, resource, name, metric]:
            return Wanted(group, version, namespace, resource, name, metric)
        case [resource, name, metric]:
            return Wanted(group, version, "", resource, name, metric)
    return None


class Handlers(Judged):
    """Answers requests. Raises StatusError."""

    def __init__(self, registry: Registry, prometheus: Prometheus, reader: Reader, access: Access) -> None:
        super().__init__(access)
        self._registry = registry
        self._prometheus = prometheus
        self._reader = reader

    @property
    def unready(self) -> str:
        return "" if self._registry.fresh else NOT_LISTED

    def documents(self) -> Documents:
        listed = self._registry.listing()
        groups = documents.groups()
        found: dict[str, Any] = {
            "/apis": partial(documents.group_list, groups),
            "/openapi/v2": documents.openapi_v2,
            "/openapi/v3": documents.openapi_index,
        }
        for group in groups:
            found[f"/apis/{group['name']}"] = partial(dict, group)
        for each in documents.API_VERSIONS:
            found[f"/apis/{each}"] = partial(documents.resource_list, each, listed)
            found[documents.openapi_path(each)] = partial(documents.openapi_v3, each)
        return found

    def aggregated_discovery(self) -> Document:
        return documents.aggregated_discovery(self._registry.listing())

    def attributes(self, method: str, path: str, query: Query) -> Mapping[str, str] | None:
        wanted = read_path(path)
        if wanted is None:
            return None
        return {"verb": verb_of(method, single=bool(wanted.name), watch=watches(query)), **wanted._asdict()}

    async def answer(self, asked: Asked, attributes: Mapping[str, str], query: Query) -> Told:
        wanted = Wanted(*(attributes[key] for key in Wanted._fields))
        found = await (self._external(wanted, query) if wanted.group == EXTERNAL else self._custom(wanted, query))
        return Told(200, msgspec.json.encode(found))

    # -- custom.metrics.k8s.io ----------------------------------------------------------------------------------------

    async def _custom(self, wanted: Wanted, query: Query) -> Document:
        namespace, name, metric = wanted.namespace, wanted.name, wanted.subresource
        text = wanted.resource
        if text == "metrics" and namespace:  # those of a namespace itself
            namespace, name, metric, text = "", namespace, name, "namespaces"
        resource = self._registry.resources.exactly(text)
        source = None
        if resource is not None:
            source = self._registry.metric(Metric(resource, metric, bool(namespace)))
        if resource is None or source is None:
            raise NotFound(f"the server could not find the metric {metric} for {text}")
        selector = _selector(query, "metricLabelSelector")
        names = [name]
        if name == EVERY:
            chosen = str(_selector(query, "labelSelector"))
            names = await cluster.names(self._reader, resource, namespace, chosen)
            if not names:
                raise NotFound(f"the server could not find the metric {metric} for {resource}")
        values = await self._values(source, resource, namespace, names, selector)
        if name != EVERY and name not in values:
            raise NotFound(f"the server could not find the metric {metric} for {resource} {name}")
        window = source.rule.window
        return objects.metric_list(
            wanted.version,
            [
                objects.metric_value(wanted.version, resource, namespace, each, metric, selector, values[each], window)
                for each in names
                if each in values
            ],
        )

    async def _values(
        self, source: Source, resource: Resource, namespace: str, names: Sequence[str], selector: LabelSelector
    ) -> dict[str, Sample]:
        """By name of the object."""
        label = label_of(source.rule, resource, self._registry.resources)
        within = self._within(source, namespace) if namespace else None
        found: dict[str, Sample] = {}
        for query in queries.of_objects(source.rule, source.series, label, names, within, selector):
            for sample in await self._prometheus.query(query):
                found[sample.labels.get(label, "")] = sample
        return found

    def _within(self, source: Source, namespace: str) -> tuple[str, str]:
        """The label that holds namespaces by a rule, and the one that is asked about."""
        known = self._registry.resources
        kind = known.find("namespaces")
        label = label_of(source.rule, kind, known) if kind is not None else ""
        if not label:
            raise InternalError.of(FAILED)
        return label, namespace

    # -- external.metrics.k8s.io --------------------------------------------------------------------------------------

    async def _external(self, wanted: Wanted, query: Query) -> Document:
        metric = wanted.resource
        source = self._registry.external(metric)
        if source is None:
            described = "namespaces" if wanted.namespace == "default" else ""
            raise NotFound(f"the server could not find the metric {metric} for {described}")
        selector = _selector(query, "labelSelector")
        within = self._within(source, wanted.namespace) if source.rule.namespaced else None
        samples = await self._prometheus.query(queries.external(source.rule, source.series, within, selector))
        items = [objects.external_value(metric, each, source.rule.window) for each in samples]
        return objects.external_list(items)


def _selector(query: Query, parameter: str) -> LabelSelector:
    """Raises BadRequest."""
    try:
        return LabelSelector.parse(query.get(parameter, [""])[0])
    except ValueError as error:
        raise BadRequest(str(error)) from error
