"""Request metrics of the API server, under upstream's names, in Prometheus' text format.

Owns: counters and histograms of requests and the process' own figures. Called by the doors on every request, so
counting is two dictionary operations; text is made only when somebody scrapes.
"""

from __future__ import annotations

import os
import resource as limits
import time
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

BUCKETS = (0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 20.0)

# (verb, group, version, resource, subresource, scope)
Series = tuple[str, str, str, str, str, str]


class RequestMetrics:
    """Counts and durations by series."""

    def __init__(self) -> None:
        self._requests: defaultdict[tuple[Series, int], int] = defaultdict(int)
        self._durations: dict[Series, list[float]] = {}
        self._long_running: defaultdict[Series, int] = defaultdict(int)
        self._gauges: dict[str, Callable[[], float]] = {}
        self._started = time.time()

    def observe(self, series: Series, code: int, seconds: float) -> None:
        """A finished request."""
        self._requests[(series, code)] += 1
        row = self._durations.get(series)
        if row is None:
            row = self._durations[series] = [0.0] * (len(BUCKETS) + 2)
        row[bisect_left(BUCKETS, seconds)] += 1
        row[-1] += seconds

    def long_running(self, series: Series, change: int) -> None:
        """A stream began (1) or ended (-1)."""
        self._long_running[series] += change

    def gauge(self, name: str, read: Callable[[], float]) -> None:
        """A figure read at scrape time; `name` may carry labels."""
        self._gauges[name] = read

    def text(self) -> str:
        """Everything, as Prometheus reads it."""
        return "\n".join((*self._lines(), ""))

    def _lines(self) -> Iterator[str]:
        yield "# TYPE apiserver_request_total counter"
        for (series, code), count in sorted(self._requests.items()):
            yield f'apiserver_request_total{{code="{code}",{_labels(series)}}} {count}'
        yield "# TYPE apiserver_request_duration_seconds histogram"
        for series, row in sorted(self._durations.items()):
            labels, total = _labels(series), 0
            for bound, finished in zip((*map(str, BUCKETS), "+Inf"), row, strict=False):
                total += int(finished)
                yield f'apiserver_request_duration_seconds_bucket{{{labels},le="{bound}"}} {total}'
            yield f"apiserver_request_duration_seconds_sum{{{labels}}} {row[-1]}"
            yield f"apiserver_request_duration_seconds_count{{{labels}}} {total}"
        yield "# TYPE apiserver_longrunning_requests gauge"
        for series, running in sorted(self._long_running.items()):
            yield f"apiserver_longrunning_requests{{{_labels(series)}}} {running}"
        named = ""
        for name, read in sorted(self._gauges.items()):
            bare = name.partition("{")[0]
            if bare != named:
                named = bare
                yield f"# TYPE {bare} gauge"
            yield f"{name} {read()}"
        yield from self._process()

    def _process(self) -> Iterator[str]:
        usage = limits.getrusage(limits.RUSAGE_SELF)
        pages = Path("/proc/self/statm").read_text().split()
        size = os.sysconf("SC_PAGE_SIZE")
        figures = (
            ("process_cpu_seconds_total", "counter", usage.ru_utime + usage.ru_stime),
            ("process_resident_memory_bytes", "gauge", int(pages[1]) * size),
            ("process_virtual_memory_bytes", "gauge", int(pages[0]) * size),
            ("process_start_time_seconds", "gauge", self._started),
            ("process_open_fds", "gauge", len(os.listdir("/proc/self/fd"))),
            ("process_max_fds", "gauge", limits.getrlimit(limits.RLIMIT_NOFILE)[0]),
        )
        for name, kind, value in figures:
            yield f"# TYPE {name} {kind}"
            yield f"{name} {value}"


def _labels(series: Series) -> str:
    verb, group, version, resource, subresource, scope = series
    return (
        f'group="{group}",resource="{resource}",scope="{scope}",subresource="{subresource}",'
        f'verb="{verb}",version="{version}"'
    )
