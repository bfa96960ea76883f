"""Which metrics there are: series of Prometheus, by the rules, as metrics of the cluster's resources.

Owns: the list, relisted at intervals, and its age: what was listed too long ago is not believed. Run by
`metrics_adapter.app`, asked by `metrics_adapter.handlers`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from machinery.clock import Clock
from machinery.errors import ServiceUnavailable, StatusError
from machinery.log import kv
from metrics_adapter import resources as cluster
from metrics_adapter.config import Config, ConfigError, Rule, read
from metrics_adapter.prometheus import AWAY, Prometheus, Series
from metrics_adapter.resources import Reader, Resource, Resources, as_label

log = logging.getLogger("metrics-adapter")
FIRST_RETRY = 0.5  # cluster seconds, doubled up to the interval


class Metric(NamedTuple):
    """A metric of objects. `namespaced`: whether a request for it names a namespace."""

    resource: Resource
    name: str
    namespaced: bool


class Source(NamedTuple):
    """Where a metric comes from."""

    rule: Rule
    series: str


class Listed(NamedTuple):
    """One list of everything."""

    custom: Mapping[Metric, Source]
    external: Mapping[str, Source]


def label_of(rule: Rule, resource: Resource, known: Resources) -> str:
    """The label that names objects of a resource by this rule; "" when there is none."""
    for label, wanted in rule.overrides.items():
        if known.find(wanted.resource, wanted.group) == resource:
            return label
    if rule.label is None:
        return ""
    return rule.label.fill({"Group": as_label(resource.group), "Resource": resource.singular})


def labels_of(rule: Rule, known: Resources) -> dict[str, Resource]:
    """The label of every resource by a rule; of two with one label the preferred one has it."""
    found: dict[str, Resource] = {}
    for each in known.known if rule.label is not None else ():
        found.setdefault(label_of(rule, each, known), each)
    for label, wanted in rule.overrides.items():
        resource = known.find(wanted.resource, wanted.group)
        if resource is not None:
            found[label] = resource
    return found


def listed(config: Config, found: Mapping[str, Iterable[Series]], known: Resources) -> Listed:
    """The metrics that series make. `found`: by series query. Later rules win. Pure."""
    custom: dict[Metric, Source] = {}
    for rule in config.rules:
        by_label = labels_of(rule, known)
        for series, name in _named(rule, found):
            objects = {by_label[label] for label in series.labels & by_label.keys()}
            has_namespace = any(each.plural == "namespaces" and not each.group for each in objects)
            for each in objects:
                metric = Metric(each, name, has_namespace and each.namespaced)
                custom[metric] = Source(rule, series.name)
    external = {name: Source(rule, series.name) for rule in config.external for series, name in _named(rule, found)}
    return Listed(custom, external)


def _named(rule: Rule, found: Mapping[str, Iterable[Series]]) -> Iterable[tuple[Series, str]]:
    for series in sorted(found.get(rule.series_query, ()), key=lambda each: (each.name, sorted(each.labels))):
        name = rule.name_of(series.name) if rule.takes(series.name) else ""
        if name:
            yield series, name


class Rules:
    """The configuration file, read again when it has changed."""

    def __init__(self, path: Path | None, config: Config) -> None:
        self._path = path
        self._stamp = self._stat()
        self.config = config
        self.failures = 0

    def refresh(self) -> None:
        """A file that is gone or wrong is told, and changes nothing."""
        stamp = self._stat()
        if self._path is None or stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self.config = read(self._path.read_bytes())
        except (OSError, ConfigError) as error:
            self.failures += 1
            log.error("Kept the rules as they were", extra=kv(file=str(self._path), error=str(error)))  # noqa: TRY400
        else:
            log.info("Read the rules", extra=kv(file=str(self._path), rules=len(self.config.rules)))

    def _stat(self) -> tuple[int, int]:
        try:
            told = self._path.stat() if self._path else None
        except OSError:
            told = None
        return (told.st_mtime_ns, told.st_size) if told else (0, 0)


class Registry:
    """The last list, and who makes it."""

    def __init__(
        self, rules: Rules, prometheus: Prometheus, reader: Reader, clock: Clock, *, interval: float, max_age: float
    ) -> None:
        """`interval`, `max_age`: cluster seconds between lists, and for which one is believed."""
        self._rules = rules
        self._prometheus = prometheus
        self._reader = reader
        self._clock = clock
        self._interval = interval
        self._max_age = max_age
        self._last = Listed({}, {})
        self._at: float | None = None
        self.resources = Resources()
        self.failures = 0

    @property
    def fresh(self) -> bool:
        """Whether the list is believed."""
        return self._at is not None and self._clock.monotonic() - self._at <= self._max_age

    def listing(self) -> Listed:
        """What there is; nothing once that is too old."""
        return self._last if self.fresh else Listed({}, {})

    def metric(self, metric: Metric) -> Source | None:
        """Where a metric comes from. Raises ServiceUnavailable while nobody knows what there is."""
        self._required()
        return self._last.custom.get(metric)

    def external(self, name: str) -> Source | None:
        """As `metric`."""
        self._required()
        return self._last.external.get(name)

    def _required(self) -> None:
        if not self.fresh:
            raise ServiceUnavailable(AWAY)

    async def run(self, made: Callable[[bool], None]) -> None:
        """Until cancelled; `made` is told after each attempt whether the list is believed."""
        delay = FIRST_RETRY
        while True:
            try:
                await self.relist()
                delay = self._interval
            except StatusError as error:
                self.failures += 1
                log.warning("Could not list metrics", extra=kv(error=error.message))
                delay = min(self._interval, delay * 2)
            made(self.fresh)
            await self._clock.sleep(delay)

    async def relist(self) -> None:
        """Ask both servers. Raises StatusError, leaving the last list."""
        self._rules.refresh()
        config = self._rules.config
        self.resources = await cluster.discover(self._reader)
        began = self._clock.monotonic()
        end = self._clock.now().timestamp()
        queries = list(dict.fromkeys(rule.series_query for rule in (*config.rules, *config.external)))
        answers = await self._all(queries, end - self._clock.real(self._max_age), end)
        self._last = listed(config, dict(zip(queries, answers, strict=True)), self.resources)
        self._at = began

    async def _all(self, queries: Sequence[str], start: float, end: float) -> list[set[Series]]:
        return await asyncio.gather(*(self._prometheus.series(query, start, end) for query in queries))
