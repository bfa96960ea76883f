"""The figures of the API server's parts, as metrics under upstream's names.

Owns: how each part's counts are named and labelled, and the timing of the store. Nothing here counts by itself.
Connected once by `apiserver.assembly`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from time import perf_counter
from typing import Any

from apiserver.audit.auditor import Auditor
from apiserver.flowcontrol.control import FlowControl
from apiserver.metrics import Family, HistogramFamily, RequestMetrics, Source, Told
from apiserver.registry.store import Registry
from apiserver.rest.limits import InFlight
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
    auditor: Auditor | None,
    version: str,
) -> None:
    """Everything there is."""
    time_store(store, metrics)
    for source in (in_flight(counted), stored_objects(registry), flow_control(control), build(version)):
        metrics.add(source)
    if auditor is not None:
        metrics.add(audit(auditor))
