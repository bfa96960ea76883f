"""`demo autoscaling`: a cluster for the story, the story, and everything away again, however it ended.

Owns what exists because of the story: the cluster when it was not running before, else a namespace and what machines
the story has brought about.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import msgspec

from cli import cluster, control
from cli.demo.timeline import Timeline
from cli.errors import CommandError
from cli.layout import ClusterConfig, ClusterPaths
from cli.output import duration, say
from cli.processes import scales_nodes, serves_metrics

CLUSTER = "demo"
NAMESPACE = "demo-autoscaling"
TIME_SCALE = 8.0
GONE_TIMEOUT = 60.0
OWN_PACE, WAITS = 20.0, 1000.0  # seconds of the story: real ones, and the cluster's


def autoscaling(name: str, *, time_scale: float, keep: bool, as_json: bool) -> int:
    """Tell the story on cluster `name`; exit code. Raises CommandError when it cannot begin."""
    with _ends_by_signal():
        paths = ClusterPaths.of(name)
        mine = not control.is_running(paths)
        out: Callable[[str], None] = say if as_json else _line
        timeline = Timeline(out)
        try:
            if mine:
                config = _bring_up(name, time_scale)
            else:
                config = control.required(name)[1]
                _check(config)
            code = _tell(config, paths, timeline, keep=keep, mine=mine)
        finally:
            if mine and keep:
                say(f"cluster {name} stays; see `./nanokube down --name {name}`")
            elif mine:
                cluster.down(name, say)
        if as_json:
            print(msgspec.json.format(msgspec.json.encode({"ok": code == 0, "steps": timeline.as_objects()})).decode())
        return code


def _line(text: str) -> None:
    print(text, flush=True)


def _bring_up(name: str, time_scale: float) -> ClusterConfig:
    say(f"bringing up cluster {name}: one worker, timers {time_scale:g} times as fast")
    return cluster.up(name, workers=1, only=[], time_scale=time_scale, log_level=None, machine={}, say=say)


def _check(config: ClusterConfig) -> None:
    if not serves_metrics(config) or not (config.nodepools or scales_nodes(config)):
        raise CommandError(
            f"cluster {config.name} has no metrics-server or no cluster autoscaler (it was begun --only)"
        )
    if config.nodepools:
        raise CommandError(f"cluster {config.name} has no cluster autoscaler (it was begun --nodepools)")


def _tell(config: ClusterConfig, paths: ClusterPaths, timeline: Timeline, *, keep: bool, mine: bool) -> int:
    from cli.demo.api import ClusterView  # what only the story needs is imported after the supervisor forked
    from cli.demo.autoscaling import AutoscalingStory

    view = ClusterView(config, paths)
    if not any(each.desired < each.max and not each.hollow for each in view.groups()):
        raise CommandError("every node group has its maximum of machines: there is nothing to grow")
    if view.get(f"/api/v1/namespaces/{NAMESPACE}") is not None:
        raise CommandError(f"namespace {NAMESPACE} is there already: another telling runs, or was kept")
    sizes = {each.name: each.desired for each in view.groups()}
    scale = config.time_scale
    story = AutoscalingStory(view, timeline, NAMESPACE, scale)
    say(
        f"Timers of cluster {config.name} run {scale:g} times as fast: the autoscalers' 5 and 10 minutes take "
        f"{300 / scale:.0f} and {600 / scale:.0f} s. Load, CPU and boot of nodes are real. About "
        f"{duration(OWN_PACE + WAITS / scale)} in all."
    )
    timeline.begin()
    try:
        story.tell()
    except (CommandError, OSError) as error:
        say(f"nanokube: {error}")
        return 1
    finally:
        story.end()
        if not mine and not keep:
            _clean(view, sizes)
    say(f"told in {timeline.seconds():.0f} s")
    return 0


def _clean(view: Any, sizes: Mapping[str, int]) -> None:
    """Take the namespace away, and as many machines as groups have more than before, where nobody else uses them."""
    path = f"/api/v1/namespaces/{NAMESPACE}"
    view.delete(path)
    deadline = time.monotonic() + GONE_TIMEOUT
    while view.get(path) is not None:
        if time.monotonic() > deadline:
            raise CommandError(f"namespace {NAMESPACE} does not go: see `kubectl get namespace {NAMESPACE} -o yaml`")
        time.sleep(0.2)
    used = {
        pod["spec"].get("nodeName")
        for pod in view.items("/api/v1/pods")
        if not any(each["kind"] == "DaemonSet" for each in pod["metadata"].get("ownerReferences") or ())
    }
    machines = sorted(view.instances().values(), key=lambda each: each.age)
    for group in view.groups():
        more = group.desired - sizes.get(group.name, group.desired)
        idle = [each.name for each in machines if each.group == group.name and each.name not in used]
        for name in idle[: max(more, 0)]:
            view.delete_instance(name)
        if more > len(idle):
            say(f"{more - len(idle)} machines of {group.name} stay: pods run there; the autoscaler has an eye on them")


@contextmanager
def _ends_by_signal() -> Iterator[None]:
    """SIGTERM ends the story as Ctrl-C does: cleanly; and Ctrl-C does so even where a script has let it be ignored."""

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
