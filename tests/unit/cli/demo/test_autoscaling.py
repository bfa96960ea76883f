"""The autoscaling story without a cluster: sizes, waits that end, load that is counted, a cluster that never scales."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cli.demo import command, workload
from cli.demo.autoscaling import CANDIDATE, LEAVING, AutoscalingStory
from cli.demo.load import Load
from cli.demo.timeline import Look, NotSeen, Timeline
from cli.errors import CommandError
from cli.layout import ClusterConfig, ClusterPaths
from proto.cloud.v1 import cloud_pb2 as pb
from tests.harness.nanokube import eventually

Obj = dict[str, Any]


class Time:
    """Stands still but for sleeps."""

    def __init__(self) -> None:
        self.now = 100.0

    def seconds(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def lines() -> list[str]:
    return []


@pytest.fixture
def timeline(lines: list[str]) -> Timeline:
    time = Time()
    return Timeline(lines.append, time.seconds, time.sleep)


def node(name: str = "n", cpu: str = "2", *, ready: str = "True", **rest: Any) -> Obj:
    return {
        "metadata": {"name": name, "labels": rest.pop("labels", {})},
        "spec": rest,
        "status": {"allocatable": {"cpu": cpu}, "conditions": [{"type": "Ready", "status": ready}]},
    }


def pod(cpu: str, where: str = "n", phase: str = "Running") -> Obj:
    container = {"resources": {"requests": {"cpu": cpu}}}
    return {"spec": {"nodeName": where, "containers": [container]}, "status": {"phase": phase}}


@pytest.mark.parametrize(
    ("nodes", "pods", "free", "most"),
    [
        pytest.param([node()], [], 4, 6, id="one empty node"),
        pytest.param([node()], [pod("100m")], 3, 5, id="a little is taken"),
        pytest.param([node()], [pod("100m", phase="Succeeded")], 4, 6, id="what has ended takes nothing"),
        pytest.param([node()], [pod("2")], 0, 4, id="no room at all"),
        pytest.param([node("a"), node("b", "4")], [], 12, 14, id="nodes of two sizes"),
        pytest.param([node("a"), node("n", unschedulable=True)], [], 4, 6, id="cordoned"),
        pytest.param([node("a"), node("n", ready="False")], [], 4, 6, id="not ready"),
        pytest.param([node("a"), node("n", taints=[{"key": "x", "effect": "NoSchedule"}])], [], 4, 6, id="tainted"),
        pytest.param([node("a"), node("n", labels={"nanokube.io/hollow": "true"})], [], 4, 6, id="hollow"),
    ],
)
def test_two_pods_more_than_have_room(nodes: list[Obj], pods: list[Obj], free: int, most: int) -> None:
    found = workload.size(nodes, pods)
    assert (found.request, found.free, found.most) == (480, free, most)
    assert 4 * found.request <= 2000
    assert 2 * found.request / 2000 < 0.5  # a node with two of them may go
    assert found.most * found.target <= workload.LOAD
    made = workload.autoscaler(found)["spec"]
    assert (made["minReplicas"], made["maxReplicas"]) == (2, most)


@pytest.mark.parametrize(
    ("nodes", "words"),
    [
        pytest.param([], "no real node", id="none"),
        pytest.param([node(str(number)) for number in range(12)], "too many nodes", id="too many"),
    ],
)
def test_clusters_that_cannot_tell_it(nodes: list[Obj], words: str) -> None:
    with pytest.raises(CommandError, match=words):
        workload.size(nodes, [])


@pytest.mark.parametrize(
    ("config", "words"),
    [
        pytest.param(ClusterConfig("demo", 0, only=["apiserver"]), "begun --only", id="parts"),
        pytest.param(ClusterConfig("demo", 0, nodepools=True), "begun --nodepools", id="node pools"),
    ],
)
def test_clusters_without_its_parts_say_why(config: ClusterConfig, words: str) -> None:
    with pytest.raises(CommandError, match=words):
        command._check(config)


def test_each_line_has_times_and_evidence(timeline: Timeline, lines: list[str]) -> None:
    looks: Iterator[Look] = iter([Look(seen="1 of 2"), Look(seen="1 of 2"), Look("2\n  of 2")])
    timeline.note("begins", "now")
    timeline.wait("pods run", "2 pods", lambda: next(looks), 10)
    assert lines[1].split() == ["+0.4s", "+0.4s", "pods", "run", "2", "of", "2"]
    assert timeline.as_objects()[1] == {"what": "pods run", "evidence": "2 of 2", "at": 0.4, "after": 0.4}


def test_a_step_that_does_not_come_says_what_was_expected_and_what_is_seen(timeline: Timeline) -> None:
    with pytest.raises(NotSeen, match=r"pods run: expected 2 pods within 10 s; seen: 1 of 2"):
        timeline.wait("pods run", "2 pods", lambda: Look(seen="1 of 2"), 10)
    assert timeline.seconds() == pytest.approx(10, abs=1)


def test_a_cluster_that_does_not_answer_for_a_moment_is_asked_again(timeline: Timeline) -> None:
    answers: list[Exception | Look] = [ConnectionRefusedError("no"), CommandError("no"), Look("yes")]

    def look() -> Look:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert timeline.wait("answers", "yes", look, 10).evidence == "yes"


class Deaf:
    """A cluster in which nothing ever happens: what is made is there, and that is all."""

    def __init__(self) -> None:
        self.made: list[Obj] = []

    def get(self, path: str, **query: str) -> Obj | None:
        return {"spec": {"clusterIP": "127.0.0.1", "metrics": []}}

    def items(self, path: str, **query: str) -> list[Obj]:
        return []

    def create(self, path: str, obj: Obj) -> None:
        self.made.append(obj)

    def nodes(self) -> list[Obj]:
        return [node()]

    def events(self, namespace: str, reason: str) -> list[Obj]:
        return []

    def instances(self) -> dict[str, pb.Instance]:
        return {}

    def bill(self) -> pb.Bill:
        return pb.Bill()


def test_a_story_without_pods_ends_with_the_step_that_did_not_come(timeline: Timeline) -> None:
    view = Deaf()
    story = AutoscalingStory(view, timeline, "demo", 10.0)
    with pytest.raises(NotSeen, match="pods run: expected 2 Ready pods within 60 s; seen: 0 of 0 pods Ready"):
        story.tell()
    story.end()
    kinds = [each["kind"] for each in view.made]
    assert kinds == ["Namespace", "Deployment", "Service", "HorizontalPodAutoscaler"]


class Shrinking(Deaf):
    """A cluster whose nodes are what a test says."""

    def __init__(self, *nodes: Obj) -> None:
        super().__init__()
        self.there = list(nodes)

    def nodes(self) -> list[Obj]:
        return self.there

    def events(self, namespace: str, reason: str) -> list[Obj]:
        return [{"message": 'Scale-down: removing node "b", …'}] if reason == "ScaleDown" else []


def test_a_node_that_goes_between_two_looks_is_not_missed(timeline: Timeline) -> None:
    tainted = node("b", taints=[{"key": CANDIDATE, "effect": "PreferNoSchedule"}])
    view = Shrinking(node("a"), tainted)
    story = AutoscalingStory(view, timeline, "demo", 10.0)
    assert "no such taint on a, b" in story._tainted(LEAVING).seen
    assert "little is requested there" in story._tainted(CANDIDATE, LEAVING).evidence
    assert story._tainted(LEAVING).seen
    view.there = [node("a"), node("b", taints=[{"key": LEAVING, "effect": "NoSchedule"}])]
    assert 'event ScaleDown: Scale-down: removing node "b"' in story._tainted(LEAVING).evidence
    view.there = [node("a")]
    assert "Node b is gone already; event ScaleDown" in story._tainted(LEAVING).evidence


def test_load_counts_answers_failures_and_who_answered() -> None:
    turn = threading.Lock()
    answers = [OSError("refused"), "a", "b", "a"]

    def request() -> str:
        with turn:
            found = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(found, OSError):
            raise found
        return str(found)

    load = Load(request, clients=2, pause=0.001)
    load.start()
    eventually(lambda: load.answered >= 10, "ten answers")
    load.stop()
    load.stop()
    assert load.failed == 1
    assert load.rates().pods == 2
    assert load.rates().per_second > 0
    answered = load.answered
    assert load.answered == answered


class Leftovers:
    """What a broken story leaves: a namespace that goes when it is asked to, and machines."""

    def __init__(self, machines: dict[str, str], used: list[str], desired: dict[str, int]) -> None:
        self.machines, self.used, self.desired = machines, used, desired
        self.there = True
        self.maximum = 2
        self.deleted: list[str] = []

    def delete(self, path: str) -> None:
        self.there = False

    def get(self, path: str) -> Obj | None:
        return {} if self.there else None

    def items(self, path: str) -> list[Obj]:
        return [{"metadata": {}, "spec": {"nodeName": name}} for name in self.used]

    def instances(self) -> dict[str, pb.Instance]:
        return {
            name: pb.Instance(name=name, group=group, age=100 - number)
            for number, (name, group) in enumerate(self.machines.items())
        }

    def groups(self) -> list[pb.Group]:
        return [pb.Group(name=name, desired=count, max=self.maximum) for name, count in self.desired.items()]

    def delete_instance(self, name: str) -> None:
        self.deleted.append(name)


@pytest.mark.parametrize(
    ("used", "sizes", "deleted"),
    [
        pytest.param([], {"w": 1}, ["w-2"], id="the youngest goes"),
        pytest.param(["w-2"], {"w": 1}, ["w-1"], id="somebody else is there"),
        pytest.param(["w-1", "w-2"], {"w": 1}, [], id="both are used"),
        pytest.param([], {"w": 2}, [], id="as many as before"),
        pytest.param([], {}, [], id="a group that was made meanwhile"),
    ],
)
def test_what_is_left_goes_unless_somebody_uses_it(used: list[str], sizes: dict[str, int], deleted: list[str]) -> None:
    left = Leftovers({"w-1": "w", "w-2": "w"}, used, {"w": 2})
    command._clean(left, sizes)
    assert not left.there
    assert left.deleted == deleted


class Broken:
    """A story that does not come to its end."""

    ends: list[bool]

    def __init__(self, *arguments: Any) -> None:
        type(self).ends = []

    def tell(self) -> None:
        raise NotSeen("node joins: expected a Node of the new machine within 60 s; seen: no new Node")

    def end(self) -> None:
        type(self).ends.append(True)


@pytest.mark.parametrize(
    ("mine", "keep", "cleaned"),
    [
        pytest.param(False, False, True, id="on a cluster that runs"),
        pytest.param(False, True, False, id="kept"),
        pytest.param(True, False, False, id="on its own, which goes as a whole"),
    ],
)
def test_a_broken_story_is_told_ends_its_load_and_cleans_up(
    mine: bool,
    keep: bool,
    cleaned: bool,
    timeline: Timeline,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    left = Leftovers({"w-1": "w"}, [], {"w": 1})
    left.there = False
    left.maximum = 5
    monkeypatch.setattr("cli.demo.api.ClusterView", lambda config, paths: left)
    monkeypatch.setattr("cli.demo.autoscaling.AutoscalingStory", Broken)
    deleted: list[str] = []
    monkeypatch.setattr(left, "delete", deleted.append)
    config = ClusterConfig(name="c", index=0, time_scale=10.0)
    code = command._tell(config, ClusterPaths(tmp_path), timeline, keep=keep, mine=mine)
    assert code == 1
    assert "expected a Node of the new machine within 60 s; seen: no new Node" in capsys.readouterr().err
    assert Broken.ends == [True]
    assert deleted == (["/api/v1/namespaces/demo-autoscaling"] if cleaned else [])


@pytest.mark.parametrize(
    ("there", "maximum", "words"),
    [pytest.param(True, 5, "another telling", id="it runs already"), pytest.param(False, 1, "maximum", id="no room")],
)
def test_a_cluster_that_cannot_tell_it_says_so(
    there: bool, maximum: int, words: str, timeline: Timeline, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    left = Leftovers({"w-1": "w"}, [], {"w": 1})
    left.there, left.maximum = there, maximum
    monkeypatch.setattr("cli.demo.api.ClusterView", lambda config, paths: left)
    config = ClusterConfig(name="c", index=0)
    with pytest.raises(CommandError, match=words):
        command._tell(config, ClusterPaths(tmp_path), timeline, keep=False, mine=False)
