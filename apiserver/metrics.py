"""Request metrics of the API server, under upstream's names, in Prometheus' text format.

Owns: counters and histograms of requests and of the store, and the process' own figures. Called by the doors on every
request, so counting is two dictionary operations; text is made only when somebody scrapes. Other parts bring theirs as
sources (`add`), see `apiserver.metric_sources`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource as limits
import time
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple, Protocol

_COMMON = (0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0)
SIZES = (1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9)
BUCKETS = (*_COMMON, 20.0, 30.0, 45.0, 60.0)
STORE_BUCKETS = (*_COMMON, 20.0, 30.0, 60.0)

# (verb, group, version, resource, subresource, scope)
Series = tuple[str, str, str, str, str, str]
Labels = Mapping[str, str]
QUESTION_SECONDS = 1.0
Row = list[float]
READS = frozenset({"GET", "LIST"})
TERMINATIONS = frozenset({429, 504})
DEPRECATED = frozenset({("", "v1", "componentstatuses"), ("", "v1", "endpoints")})
"""What clients are told to leave; upstream names no release that removes them."""


class Family(NamedTuple):
    """One metric: its name, `counter` or `gauge`, what it tells, and its samples."""

    name: str
    kind: str
    help: str
    samples: Iterable[tuple[Labels, float]]

    def lines(self) -> Iterator[str]:
        yield f"# HELP {self.name} {self.help}"
        yield f"# TYPE {self.name} {self.kind}"
        for labels, value in self.samples:
            yield f"{self.name}{shown(labels)} {_number(value)}"


class Told(Protocol):
    """What can be told of one metric."""

    def lines(self) -> Iterator[str]: ...


Source = Callable[[], Iterable[Told]]


def shown(labels: Labels) -> str:
    """Labels in braces, in order of their names."""
    if not labels:
        return ""
    return "{" + ",".join(f'{key}="{_escaped(value)}"' for key, value in sorted(labels.items())) + "}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)


class Histogram:
    """Durations by key, with fixed buckets; a row is one count per bucket, one for those above, and the sum."""

    def __init__(self, buckets: tuple[float, ...]) -> None:
        self._buckets = buckets
        self._rows: dict[tuple[str, ...], Row] = {}

    def row(self, key: tuple[str, ...]) -> Row:
        """The counts of a key, for whoever adds to them often: what is at most the first bucket's goes to the first."""
        row = self._rows.get(key)
        if row is None:
            row = self._rows[key] = [0.0] * (len(self._buckets) + 2)
        return row

    def observe(self, key: tuple[str, ...], seconds: float, times: int = 1) -> None:
        row = self.row(key)
        row[bisect_left(self._buckets, seconds)] += times
        row[-1] += seconds * times

    def add(self, row: Row, seconds: float) -> None:
        """To a row of this histogram."""
        row[bisect_left(self._buckets, seconds)] += 1
        row[-1] += seconds

    def counts(self) -> Iterator[tuple[tuple[str, ...], float]]:
        """How often each key was observed."""
        for key, row in sorted(self._rows.items()):
            yield key, sum(row[:-1])

    def lines(self, name: str, text: str, labels: Callable[[tuple[str, ...]], dict[str, str]]) -> Iterator[str]:
        yield f"# HELP {name} {text}"
        yield f"# TYPE {name} histogram"
        for key, row in sorted(self._rows.items()):
            known, total = labels(key), 0
            if not any(row[:-1]):
                continue
            for bound, finished in zip((*map(_number, self._buckets), "+Inf"), row, strict=False):
                total += int(finished)
                yield f"{name}_bucket{shown({**known, 'le': bound})} {total}"
            yield f"{name}_sum{shown(known)} {row[-1]}"
            yield f"{name}_count{shown(known)} {total}"


class HistogramFamily(NamedTuple):
    """A histogram that another part keeps."""

    name: str
    help: str
    histogram: Histogram
    labels: Callable[[tuple[str, ...]], dict[str, str]]

    def lines(self) -> Iterator[str]:
        return self.histogram.lines(self.name, self.help, self.labels)


class _Answered:
    """Requests of one series that were answered with one code."""

    __slots__ = ("count", "durations", "sizes")

    def __init__(self, durations: Row, sizes: Row | None) -> None:
        self.count = 0
        self.durations = durations
        self.sizes = sizes


class RequestMetrics:
    """Counts, durations and sizes by series."""

    def __init__(self) -> None:
        self._requests: dict[tuple[Series, int], _Answered] = {}
        self._durations = Histogram(BUCKETS)
        self._sizes = Histogram(SIZES)
        self.store = Histogram(STORE_BUCKETS)
        """Of the store's operations, by (operation, resource)."""
        self.store_errors: defaultdict[tuple[str, str], int] = defaultdict(int)
        self._health: dict[tuple[str, str], bool] = {}
        self._health_checks: defaultdict[tuple[str, str, str], int] = defaultdict(int)
        self._long_running: defaultdict[Series, int] = defaultdict(int)
        self._sources: list[Source] = []
        self._questions: list[Callable[[], Awaitable[None]]] = []
        self._started = time.time()

    def observe(self, series: Series, code: int, seconds: float, size: int = 0) -> None:
        """A finished request and the bytes of its answer, which count for reads."""
        found = self._requests.get((series, code))
        if found is None:
            sizes = self._sizes.row(series) if series[0] in READS else None
            found = self._requests[series, code] = _Answered(self._durations.row(series), sizes)
        found.count += 1
        self._durations.add(found.durations, seconds)
        if found.sizes is not None:
            self._sizes.add(found.sizes, size)

    def long_running(self, series: Series, change: int) -> None:
        """A stream began (1) or ended (-1)."""
        self._long_running[series] += change
        if not self._long_running[series]:
            del self._long_running[series]

    def checked(self, root: str, name: str, *, passed: bool) -> None:
        """A health check was asked; `root` is livez, readyz or healthz."""
        self._health[name, root] = passed
        self._health_checks[name, "success" if passed else "error", root] += 1

    def add(self, source: Source) -> None:
        """Families that are asked for at every scrape."""
        self._sources.append(source)

    def ask_before(self, question: Callable[[], Awaitable[None]]) -> None:
        """Something to await before every scrape, such as a figure that another process knows."""
        self._questions.append(question)

    async def refresh(self) -> None:
        """Ask whoever has to be asked; who does not answer soon is left out."""
        for question in self._questions:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(QUESTION_SECONDS):
                    await question()

    def text(self) -> str:
        """Everything, as Prometheus reads it."""
        return "\n".join((*self._lines(), ""))

    def _lines(self) -> Iterator[str]:
        answered = sorted(self._requests.items(), key=lambda item: item[0])
        requests = (({**_labels(series), "code": str(code)}, each.count) for (series, code), each in answered)
        yield from Family("apiserver_request_total", "counter", "Requests answered, by code.", requests).lines()
        yield from self._sizes.lines("apiserver_response_sizes", "Bytes of the answers to reads.", _running)
        old = sorted({series[1:5] for (series, _), _ in answered if series[1:4] in DEPRECATED})
        named = ("group", "version", "resource", "subresource")
        samples = (({**dict(zip(named, each, strict=True)), "removed_release": ""}, 1.0) for each in old)
        text = "Deprecated APIs that were asked for."
        yield from Family("apiserver_requested_deprecated_apis", "gauge", text, samples).lines()
        for name in ("apiserver_request_duration_seconds", "apiserver_request_sli_duration_seconds"):
            yield from self._durations.lines(name, "How long requests took.", _labels)
        ended = (
            ({**_running(series), "code": str(code)}, each.count)
            for (series, code), each in answered
            if code in TERMINATIONS
        )
        text = "Requests that were turned away or given up in self-defence."
        yield from Family("apiserver_request_terminations_total", "counter", text, ended).lines()
        health = (({"name": name, "type": root}, float(ok)) for (name, root), ok in sorted(self._health.items()))
        yield from Family("kubernetes_healthcheck", "gauge", "Whether a check passed when last asked.", health).lines()
        checks = (
            ({"name": name, "status": status, "type": root}, count)
            for (name, status, root), count in sorted(self._health_checks.items())
        )
        yield from Family("kubernetes_healthchecks_total", "counter", "Health checks by their outcome.", checks).lines()
        running = ((_running(series), count) for series, count in sorted(self._long_running.items()))
        text = "Watches and streams under way."
        yield from Family("apiserver_longrunning_requests", "gauge", text, running).lines()
        text = "How long the store took, by operation and resource."
        yield from self.store.lines("etcd_request_duration_seconds", text, _store_labels)
        errors = ((_store_labels(key), count) for key, count in sorted(self.store_errors.items()))
        text = "Operations of the store that failed."
        yield from Family("etcd_request_errors_total", "counter", text, errors).lines()
        for source in self._sources:
            for family in source():
                yield from family.lines()
        yield from self._process()

    def _process(self) -> Iterator[str]:
        usage = limits.getrusage(limits.RUSAGE_SELF)
        pages = Path("/proc/self/statm").read_text().split()
        size = os.sysconf("SC_PAGE_SIZE")
        figures = (
            (
                "process_cpu_seconds_total",
                "counter",
                "Processor time used.",
                usage.ru_utime + usage.ru_stime,
            ),
            ("process_resident_memory_bytes", "gauge", "Resident memory.", int(pages[1]) * size),
            ("process_virtual_memory_bytes", "gauge", "Virtual memory.", int(pages[0]) * size),
            (
                "process_start_time_seconds",
                "gauge",
                "When the process began, in seconds since 1970.",
                self._started,
            ),
            ("process_open_fds", "gauge", "Open file descriptors.", len(os.listdir("/proc/self/fd"))),
            (
                "process_max_fds",
                "gauge",
                "File descriptors that may be open.",
                limits.getrlimit(limits.RLIMIT_NOFILE)[0],
            ),
        )
        for name, kind, text, value in figures:
            yield from Family(name, kind, text, (({}, value),)).lines()


def _labels(series: tuple[str, ...]) -> dict[str, str]:
    return {**_running(series), "dry_run": ""}


def _running(series: tuple[str, ...]) -> dict[str, str]:
    verb, group, version, resource, subresource, scope = series
    return {
        "component": "apiserver",
        "group": group,
        "resource": resource,
        "scope": scope,
        "subresource": subresource,
        "verb": verb,
        "version": version,
    }


def _store_labels(key: tuple[str, ...]) -> dict[str, str]:
    return {"operation": key[0], "type": key[1]}
