"""The figures of the API server's parts, as metrics under upstream's names.

Owns: how each part's counts are named and labelled, and the timing of the store. Nothing here counts by itself.
Connected once by `apiserver.assembly`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Iterator
from time import perf_counter
from typing import Any

from apiserver.audit.auditor import Auditor
from apiserver.expressions.compiling import COMPILATIONS, EVALUATIONS
from apiserver.flowcontrol.control import FlowControl
from apiserver.metrics import Family, HistogramFamily, RequestMetrics, Source, Told
from apiserver.registry.admission_times import AdmissionTimes
from apiserver.registry.store import Registry
from apiserver.rest.limits import InFlight
from apiserver.rest.watch import WatchStreams
from apiserver.storage.interface import Store, StoreError
from apiserver.storage.keys import ROOT

TIMED = {"get": "get", "range": "list", "create": "create", "replace": "update", "delete": "delete"}


def time_store(store: Store, metrics: RequestMetrics) -> None:
    """From now on the store's operations are timed."""
    for name, operation in TIMED.items():
        setattr(store, name, _timed(getattr(store, name), operation, metrics))


def _timed(
    method: Callable[..., Awaitable[Any]], operation: str, metrics: RequestMetrics
) -> Callable[..., Awaitable[Any]]:
    observe, errors, start = metrics.store.observe, metrics.store_errors, len(ROOT)

    async def timed(key: bytes, *args: Any, **kwargs: Any) -> Any:
        began = perf_counter()
        kind = key[start : key.find(b"/", start)].decode("latin-1")
        try:
            return await method(key, *args, **kwargs)
        except StoreError:
            errors[operation, kind] += 1
            raise
        finally:
            observe((operation, kind), perf_counter() - began)

    return timed


class StoreSize:
    """The size of the store's database, asked for before each scrape."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._bytes: int | None = None

    async def ask(self) -> None:
        self._bytes = None
        with contextlib.suppress(StoreError):
            self._bytes = await self._store.size()

    def families(self) -> Iterator[Family]:
        samples = [({"storage_cluster_id": "etcd-0"}, float(self._bytes))] if self._bytes is not None else []
        yield Family("apiserver_storage_size_bytes", "gauge", "Bytes that the store's database takes.", samples)


def in_flight(counted: InFlight) -> Source:
    def families() -> Iterator[Family]:
        text = "Requests under way, reading and changing ones."
        kinds = zip(("readOnly", "mutating"), counted.counts, strict=True)
        samples = [({"request_kind": kind}, float(count)) for kind, count in kinds]
        yield Family("apiserver_current_inflight_requests", "gauge", text, samples)

    return families


def stored_objects(registry: Registry) -> Source:
    def families() -> Iterator[Family]:
        counts = {store.resource.qualified: float(len(store.cache)) for store in registry.stores()}
        samples = [({"resource": name}, count) for name, count in sorted(counts.items())]
        text = "Objects in the store, by resource."
        yield Family("apiserver_storage_objects", "gauge", text, samples)
        placed = {(each.resource.group, each.resource.plural): float(len(each.cache)) for each in registry.stores()}
        samples = [({"group": group, "resource": plural}, count) for (group, plural), count in sorted(placed.items())]
        yield Family("apiserver_resource_objects", "gauge", text, samples)
        watchers = {store.resource: float(len(tuple(store.cache.watchers))) for store in registry.stores()}
        named = [
            ({"group": each.group, "kind": each.kind, "version": each.version}, count)
            for each, count in watchers.items()
            if count
        ]
        yield Family("apiserver_registered_watchers", "gauge", "Watches that are open, by resource.", named)

    return families


def flow_control(control: FlowControl) -> Source:
    def families() -> Iterator[Told]:
        prefix = "apiserver_flowcontrol"
        levels = [({"priority_level": level.spec.name}, level) for level in control.levels]
        gauges: tuple[tuple[str, str, Callable[[Any], float]], ...] = (
            (
                "nominal_limit_seats",
                "Seats that are a priority level's own.",
                lambda at: at.spec.seats,
            ),
            (
                "current_limit_seats",
                "Seats that a priority level may use now.",
                lambda at: max(at.spec.seats, at.seats),
            ),
            ("current_executing_seats", "Seats that are taken, by priority level.", lambda at: at.seats),
            ("current_executing_requests", "Requests that hold seats, by priority level.", lambda at: at.executing),
            ("current_inqueue_requests", "Requests that wait for seats, by priority level.", lambda at: at.queued),
        )
        for name, text, read in gauges:
            yield Family(f"{prefix}_{name}", "gauge", text, [(labels, float(read(level))) for labels, level in levels])
        text = "Requests that got seats, by priority level and flow schema."
        samples = [
            ({"flow_schema": s, "priority_level": p}, float(n)) for (p, s), n in sorted(control.dispatched.items())
        ]
        yield Family(f"{prefix}_dispatched_requests_total", "counter", text, samples)
        text = "Requests that were turned away, by priority level, flow schema and reason."
        rejected = [
            ({"flow_schema": schema, "priority_level": level, "reason": reason}, float(count))
            for (level, schema, reason), count in sorted(control.rejected.items())
        ]
        yield Family(f"{prefix}_rejected_requests_total", "counter", text, rejected)
        text = "How long requests that found no free seat waited in queues, in seconds."
        yield HistogramFamily(f"{prefix}_request_wait_duration_seconds", text, control.waits, _wait_labels)

    return families


def admission(times: AdmissionTimes) -> Source:
    names = ("name", "operation", "rejected", "type")
    policy = ("enforcement_action", "error_type", "policy", "policy_binding")

    def families() -> Iterator[Told]:
        prefix = "apiserver_admission"
        text = "How long a plugin took."
        found = times.controllers
        yield HistogramFamily(f"{prefix}_controller_admission_duration_seconds", text, found, _labelled(*names))
        text = "How long all plugins of a step took."
        yield HistogramFamily(f"{prefix}_step_admission_duration_seconds", text, times.steps, _labelled(*names[1:]))
        text = "How long a webhook took."
        yield HistogramFamily(f"{prefix}_webhook_admission_duration_seconds", text, times.webhooks, _labelled(*names))
        counted = (
            ("request_total", "Requests to webhooks.", times.requests, ("code", *names)),
            (
                "rejection_count",
                "Refusals by webhooks, and by those that failed.",
                times.rejections,
                ("error_type", "name", "operation", "rejection_code", "type"),
            ),
            ("fail_open_count", "Webhooks that failed without effect.", times.open_failures, ("name", "type")),
        )
        for name, text, counts, labels in counted:
            read = _labelled(*labels)
            samples = [(read(key), float(count)) for key, count in sorted(counts.items())]
            yield Family(f"{prefix}_webhook_{name}", "counter", text, samples)
        prefix, read = "apiserver_validating_admission_policy", _labelled(*policy)
        checks = [(read(key), count) for key, count in times.policies.counts()]
        yield Family(f"{prefix}_check_total", "counter", "Checks by policies and what came of them.", checks)
        text = "How long checks by policies took."
        yield HistogramFamily(f"{prefix}_check_duration_seconds", text, times.policies, read)

    return families


def watches(streams: WatchStreams) -> Source:
    read = _labelled("group", "version", "resource")

    def families() -> Iterator[Told]:
        sizes = streams.sizes()
        samples = [(read(key), count) for key, count in sizes.counts()]
        yield Family("apiserver_watch_events_total", "counter", "Events sent to watches.", samples)
        yield HistogramFamily("apiserver_watch_events_sizes", "Bytes of events sent to watches.", sizes, read)

    return families


def expressions() -> Iterator[Told]:
    read, prefix = _labelled(), "apiserver_cel"
    yield HistogramFamily(f"{prefix}_compilation_duration_seconds", "How long CEL took to compile.", COMPILATIONS, read)
    yield HistogramFamily(f"{prefix}_evaluation_duration_seconds", "How long CEL took to evaluate.", EVALUATIONS, read)


def _labelled(*names: str) -> Callable[[tuple[str, ...]], dict[str, str]]:
    return lambda key: dict(zip(names, key, strict=True))


def _wait_labels(key: tuple[str, ...]) -> dict[str, str]:
    return dict(zip(("execute", "flow_schema", "priority_level"), key, strict=True))


def audit(auditor: Auditor) -> Source:
    def families() -> Iterator[Family]:
        text = "Audit events written."
        yield Family("apiserver_audit_event_total", "counter", text, [({}, float(auditor.events))])
        levels = [({"level": level}, float(count)) for level, count in sorted(auditor.levels.items())]
        text = "Requests by the level that the audit policy gives them."
        yield Family("apiserver_audit_level_total", "counter", text, levels)
        text = "Audit events that could not be written."
        yield Family("apiserver_audit_error_total", "counter", text, [({"plugin": "log"}, float(auditor.lost))])

    return families


def build(version: str) -> Source:
    def families() -> Iterator[Family]:
        major, minor = version.removeprefix("v").split(".")[:2]
        labels = {"git_version": version, "major": major, "minor": minor, "platform": "linux/amd64"}
        text = "Always 1; the labels tell what is running."
        yield Family("kubernetes_build_info", "gauge", text, [(labels, 1.0)])

    return families


def connect(
    metrics: RequestMetrics,
    *,
    store: Store,
    registry: Registry,
    counted: InFlight,
    control: FlowControl,
    streams: WatchStreams,
    auditor: Auditor | None,
    version: str,
) -> None:
    """Everything there is."""
    time_store(store, metrics)
    size = StoreSize(store)
    metrics.ask_before(size.ask)
    metrics.add(size.families)
    metrics.add(expressions)
    for source in (
        in_flight(counted),
        stored_objects(registry),
        flow_control(control),
        admission(registry.admission.times),
        watches(streams),
        build(version),
    ):
        metrics.add(source)
    if auditor is not None:
        metrics.add(audit(auditor))
