"""The pod machine: tables for what must happen, and a simulated node where anything may happen in any order.

Over 500 lines because the tables and the state machine share one simulated node, whose rules are a third of it.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api.models import core_v1
from kubelet.pod import events as ev
from kubelet.pod.machine import PodMachine
from kubelet.pod.timeline import Now
from kubelet.records import ContainerRecord, ContainerState, SandboxRecord
from kubelet.status.pod_status import pod_status

START = 1_000_000.0
WALL = 1_790_000_000 * 10**9


def make_pod(containers: Any = ("main",), **spec: Any) -> core_v1.Pod:
    meta = {"name": "web", "namespace": "default", "uid": "u-1", **spec.pop("metadata", {})}
    status = spec.pop("status", {})
    listed = [each if isinstance(each, dict) else {"name": each, "image": "busybox"} for each in containers]
    raw = {"metadata": meta, "spec": {"containers": listed, **spec}, "status": status}
    return msgspec.convert(raw, core_v1.Pod, strict=False)


def at(seconds: float) -> Now:
    return Now(START + seconds, WALL + int(seconds * 1e9))


@dataclass
class Node:
    """Carries out instructions as a node would; every result is an event the test may deliver when it likes."""

    machine: PodMachine
    now: float = 0.0
    pending: list[Any] = field(default_factory=list)
    live: dict[str, ContainerRecord] = field(default_factory=dict)
    dead: dict[str, ContainerRecord] = field(default_factory=dict)
    events: list[ev.Emit] = field(default_factory=list)
    log: list[str] = field(default_factory=list)
    done: bool = False
    deleted_from_api: bool = False
    wake: float | None = None
    sandbox_up: bool = False
    ids: Any = field(default_factory=lambda: itertools.count(1))
    fail: set[str] = field(default_factory=set)
    room: tuple[str, str] = ("", "")  # the node's answer to a resize

    def post(self, event: ev.Event) -> None:
        if self.done:
            return
        for instruction in self.machine.handle(event, at(self.now)):
            self.take(instruction)

    def take(self, wish: ev.Instruction) -> None:
        self.log.append(type(wish).__name__ + (f":{wish.container}" if hasattr(wish, "container") else ""))
        match wish:
            case ev.Emit():
                self.events.append(wish)
            case ev.WakeAt(when):
                self.wake = when - START
            case ev.Forget():
                self.done = True
            case ev.DeleteFromApi():
                self.deleted_from_api = True
            case ev.StartProbes() | ev.StopProbes() | ev.RemoveContainer():
                pass
            case ev.TearDownVolumes():
                assert not self.live, "the volumes of running containers were removed"
            case ev.KillContainer():
                self.pending = [
                    each
                    for each in self.pending
                    if not (isinstance(each, ev.KillContainer) and each.container == wish.container)
                ]
                self.pending.append(wish)
            case _:
                self.pending.append(wish)

    def finish(self, index: int = 0) -> None:
        """Carry out one pending instruction and report."""
        self.report(self.pending.pop(index))

    def report(self, wish: Any) -> None:
        match wish:
            case ev.SetUpVolumes():
                self.post(ev.VolumesFailed() if "volumes" in self.fail else ev.VolumesReady())
            case ev.StartSandbox(attempt, _):
                if "sandbox" in self.fail:
                    self.post(ev.SandboxFailed("no"))
                    return
                self.sandbox_up = True
                self.post(ev.SandboxStarted(SandboxRecord(f"s{attempt}", attempt, True, ips=("10.0.0.2",))))
            case ev.StopSandbox(sandbox_id):
                self.sandbox_up = False
                assert not self.live, "the sandbox was stopped under running containers"
                self.post(ev.SandboxStopped(sandbox_id))
            case ev.EnsureImage(name):
                if "image" in self.fail:
                    self.post(ev.ImageFailed(name, "ErrImagePull", "no such image"))
                else:
                    self.post(ev.ImageReady(name, "sha256:1"))
            case ev.StartContainer(name, attempt, _):
                self.begin(name, attempt)
            case ev.KillContainer(name, container_id, _, _, _):
                record = self.live.pop(name, None)
                if record is None or record.id != container_id:
                    self.post(ev.ContainerKilled(name, None))
                else:
                    self.post(ev.ContainerKilled(name, self.ended(record, 137)))
            case ev.AskResize():
                self.post(ev.ResizeDecided(*self.room))
            case ev.ResizeContainer(name, container_id, resources):
                error = "no" if "resize" in self.fail else ""
                self.post(ev.ContainerResized(name, container_id, resources, error))
            case ev.TearDown():
                assert not self.live, "torn down under running containers"
                self.sandbox_up = False
                self.post(ev.TornDown())
            case _:
                raise AssertionError(wish)

    def begin(self, name: str, attempt: int) -> None:
        assert name not in self.live, f"two live instances of {name}"
        sandbox = self.machine.sandbox
        assert sandbox is not None and self.machine.volumes_ready, "started without sandbox or volumes"
        if "start" in self.fail or not self.sandbox_up:
            self.post(ev.ContainerFailed(name, "CreateContainerError", "no"))
            return
        self.post(ev.ContainerStarted(self.run(name, attempt, sandbox.id)))

    def run(self, name: str, attempt: int, sandbox_id: str) -> ContainerRecord:
        """What the runtime does, whether or not somebody hears of it."""
        nanos = WALL + int(self.now * 1e9)
        identity, digest = f"c{next(self.ids)}", self.machine.slots[name].hash
        record = ContainerRecord(identity, name, attempt, ContainerState.RUNNING, sandbox_id, nanos, nanos, hash=digest)
        self.live[name] = record
        return record

    def ended(self, record: ContainerRecord, code: int) -> ContainerRecord:
        finished = WALL + int(self.now * 1e9)
        self.dead[record.name] = replace(record, state=ContainerState.EXITED, exit_code=code, finished_at=finished)
        return self.dead[record.name]

    def restart_kubelet(self) -> None:
        """A new machine knows only what the API server and the runtime hold; whatever was under way is lost."""
        old = self.machine
        status = pod_status(old, "10.9.9.9", "nanokube", at(self.now).wall())
        raw = msgspec.to_builtins(old.pod)
        raw["status"] = status
        self.machine = PodMachine(msgspec.convert(raw, core_v1.Pod, strict=False), at(self.now))
        for wish in self.pending:  # the runtime may have carried out what the old kubelet never heard of
            if isinstance(wish, ev.StartContainer) and self.sandbox_up and old.sandbox is not None:
                self.run(wish.container, wish.attempt, old.sandbox.id)
        self.pending, self.wake = [], None
        sandboxes = (replace(old.sandbox, ready=self.sandbox_up),) if old.sandbox is not None else ()
        self.post(ev.Observed(sandboxes, (*self.dead.values(), *self.live.values()), complete=True))

    def exit(self, name: str, code: int = 1) -> None:
        self.post(ev.Observed((), (self.ended(self.live.pop(name), code),)))

    def settle(self) -> None:
        for _ in range(100):
            if not self.pending:
                return
            self.finish()
        raise AssertionError(f"does not settle: {self.log[-20:]}")

    def sleep(self, seconds: float) -> None:
        """Let time pass, waking the machine when it wanted to be."""
        end = self.now + seconds
        while self.wake is not None and self.wake <= end:
            self.now, self.wake = max(self.now, self.wake), None
            self.post(ev.Woken())
            self.settle()
        self.now = end

    def reasons(self) -> list[str]:
        return [event.reason for event in self.events]


def start(pod: core_v1.Pod) -> Node:
    node = Node(PodMachine(pod, at(0)))
    node.post(ev.Observed(complete=True))
    return node


def running(pod: core_v1.Pod) -> Node:
    node = start(pod)
    node.settle()
    return node


def test_volumes_come_first_then_sandbox_and_images_side_by_side() -> None:
    node = start(make_pod())
    assert [type(wish) for wish in node.pending] == [ev.SetUpVolumes]
    node.finish()
    assert {type(wish) for wish in node.pending} == {ev.StartSandbox, ev.EnsureImage}
    node.settle()
    assert set(node.live) == {"main"}


def test_init_containers_run_one_after_the_other_then_all_mains() -> None:
    inits = [{"name": "i1", "image": "a"}, {"name": "i2", "image": "a"}]
    node = running(make_pod(("a", "b"), initContainers=inits))
    assert set(node.live) == {"i1"}
    node.exit("i1", 0)
    node.settle()
    assert set(node.live) == {"i2"}
    node.exit("i2", 0)
    node.settle()
    assert set(node.live) == {"a", "b"}


def test_a_sidecar_runs_beside_the_mains_and_ends_after_them() -> None:
    sidecar = {"name": "side", "image": "a", "restartPolicy": "Always"}
    node = running(make_pod(initContainers=[sidecar], restartPolicy="Never"))
    assert set(node.live) == {"side", "main"}
    node.exit("main", 0)
    assert [type(wish) for wish in node.pending] == [ev.KillContainer]
    node.settle()
    assert node.machine.over and not node.live and not node.sandbox_up


def test_a_sidecar_with_startup_probe_holds_the_next_until_it_has_started() -> None:
    sidecar = {"name": "side", "image": "a", "restartPolicy": "Always", "startupProbe": {"exec": {"command": ["x"]}}}
    node = running(make_pod(initContainers=[sidecar]))
    assert set(node.live) == {"side"}
    node.post(ev.ProbeResult("side", node.live["side"].id, "startup", True))
    node.settle()
    assert set(node.live) == {"side", "main"}


def test_crash_loop_waits_ten_seconds_doubling_to_five_minutes() -> None:
    node = running(make_pod())
    waits = []
    for _ in range(8):
        node.exit("main", 1)
        node.settle()
        began = node.now
        while not node.live:
            assert node.wake is not None
            node.sleep(node.wake - node.now)
        waits.append(round(node.now - began))
    assert waits == [0, 10, 20, 40, 80, 160, 300, 300]
    assert node.machine.slots["main"].current.attempt == 8  # type: ignore[union-attr]
    told = [event.message for event in node.events if event.reason == "BackOff"]
    assert told[0] == "Back-off restarting failed container main in pod web_default(u-1)"
    assert len(told) == 7


def test_back_off_is_forgotten_after_ten_good_minutes() -> None:
    node = running(make_pod())
    for _ in range(3):
        node.exit("main", 1)
        node.settle()
        node.sleep(30)
    assert node.live
    node.sleep(601)
    node.exit("main", 1)
    node.settle()
    assert node.live, "restarted at once, as the first time"


def test_crash_loop_status_names_delay_container_and_pod() -> None:
    node = running(make_pod())
    for _ in range(2):
        node.exit("main", 1)
        node.settle()
    assert node.machine.slots["main"].waiting == (
        "CrashLoopBackOff",
        "back-off 10s restarting failed container=main pod=web_default(u-1)",
    )


@pytest.mark.parametrize(
    ("policy", "code", "restarts"),
    [
        pytest.param("Always", 0, True, id="always-success"),
        pytest.param("Always", 1, True, id="always-failure"),
        pytest.param("OnFailure", 0, False, id="onfailure-success"),
        pytest.param("OnFailure", 1, True, id="onfailure-failure"),
        pytest.param("Never", 0, False, id="never-success"),
        pytest.param("Never", 1, False, id="never-failure"),
    ],
)
def test_restart_policy(policy: str, code: int, restarts: bool) -> None:
    node = running(make_pod(restartPolicy=policy))
    node.exit("main", code)
    node.settle()
    assert bool(node.live) is restarts
    assert node.machine.over is not restarts
    assert node.sandbox_up is restarts


def test_image_failures_flip_to_back_off_and_are_retried() -> None:
    node = start(make_pod())
    node.fail.add("image")
    node.settle()
    slot = node.machine.slots["main"]
    assert slot.waiting == ("ErrImagePull", "no such image")
    node.sleep(4)
    assert slot.waiting == ("ImagePullBackOff", 'Back-off pulling image "busybox": no such image')
    node.sleep(10)
    assert node.log.count("EnsureImage:main") == 2
    node.fail.clear()
    node.sleep(25)
    assert set(node.live) == {"main"} and slot.waiting is None


def test_a_start_failure_is_shown_and_retried() -> None:
    node = start(make_pod())
    node.fail.add("start")
    node.settle()
    assert node.machine.slots["main"].waiting == ("CreateContainerError", "no")
    node.fail.clear()
    node.sleep(11)
    assert set(node.live) == {"main"}


def test_deletion_kills_then_tears_down_then_deletes() -> None:
    pod = make_pod()
    node = running(pod)
    doomed = make_pod(metadata={"deletionTimestamp": "2026-01-01T00:00:00Z", "deletionGracePeriodSeconds": 7})
    node.post(ev.PodChanged(doomed))
    kill = node.pending[-1]
    assert isinstance(kill, ev.KillContainer) and kill.grace == pytest.approx(7)
    node.settle()
    assert node.deleted_from_api and not node.done
    node.post(ev.PodGone(0))
    assert node.done
    assert "Killing" in node.reasons()


@pytest.mark.parametrize("containers", [("main",), ("main", "other")])
def test_whoever_watches_a_deleted_pod_sees_it_whole_and_then_ended(containers: tuple[str, ...]) -> None:
    node = running(make_pod(containers))
    told: list[tuple[str, bool]] = []
    post = node.post

    def posted(event: ev.Event) -> None:
        post(event)
        if not (node.machine.half_gone() or node.done):
            status = pod_status(node.machine, "n", "x", datetime(2026, 1, 1, tzinfo=UTC))
            ready = all(each["ready"] for each in status["containerStatuses"])
            told.append((status["phase"], ready))

    node.post = posted  # type: ignore[method-assign]
    meta = {"deletionTimestamp": "2026-01-01T00:00:00Z", "deletionGracePeriodSeconds": 7}
    node.post(ev.PodChanged(make_pod(containers, metadata=meta)))
    node.settle()
    assert node.deleted_from_api
    assert [each for each, before in zip(told, [None, *told], strict=False) if each != before] in (
        [("Running", True), ("Failed", False)],
        [("Running", True), ("Succeeded", False)],
    )


def test_a_shorter_grace_hurries_the_kill_under_way() -> None:
    node = running(make_pod())
    for grace, expected in ((30, 30), (1, 1)):
        meta = {"deletionTimestamp": "2026-01-01T00:00:00Z", "deletionGracePeriodSeconds": grace}
        node.post(ev.PodChanged(make_pod(metadata=meta)))
        assert node.pending[-1].grace == pytest.approx(expected)
    assert len(node.pending) == 1, "the second kill replaces the first"


def test_a_pod_removed_by_force_is_taken_down_without_touching_the_api() -> None:
    node = running(make_pod())
    node.post(ev.PodGone(0))
    node.settle()
    assert node.done and not node.live and not node.deleted_from_api


def test_deletion_while_starting_waits_for_the_start_and_then_kills() -> None:
    node = start(make_pod())
    while not isinstance(node.pending[0], ev.StartContainer):
        node.finish()
    node.post(ev.PodGone(1))
    assert [type(wish) for wish in node.pending] == [ev.StartContainer]
    node.settle()
    assert node.done and not node.live


def test_liveness_failure_kills_and_restarts_with_the_probes_grace() -> None:
    probe = {"exec": {"command": ["x"]}, "terminationGracePeriodSeconds": 3}
    node = running(make_pod(({"name": "main", "image": "a", "livenessProbe": probe},)))
    first = node.live["main"].id
    node.post(ev.ProbeResult("main", first, "liveness", False))
    assert node.pending[-1].grace == 3
    node.settle()
    assert node.live["main"].id != first
    assert "Container main failed liveness probe, will be restarted" in [event.message for event in node.events]


def test_readiness_follows_its_probe() -> None:
    node = running(make_pod(({"name": "main", "image": "a", "readinessProbe": {"exec": {"command": ["x"]}}},)))
    slot = node.machine.slots["main"]
    seen = [slot.ready]
    for ok in (True, False):
        node.post(ev.ProbeResult("main", node.live["main"].id, "readiness", ok))
        seen.append(slot.ready)
    assert seen == [False, True, False]
    assert node.live, "an unready container keeps running"


def test_a_dead_sandbox_is_replaced_and_init_containers_run_again() -> None:
    node = running(make_pod(initContainers=[{"name": "init", "image": "a"}]))
    node.exit("init", 0)
    node.settle()
    sandbox = node.machine.sandbox
    assert sandbox is not None and set(node.live) == {"main"}
    node.post(ev.Observed((replace(sandbox, ready=False),)))
    node.settle()
    assert set(node.live) == {"init"}
    node.exit("init", 0)
    node.settle()
    assert set(node.live) == {"main"} and node.machine.sandbox.attempt == 1  # type: ignore[union-attr]
    assert "SandboxChanged" in node.reasons()


def test_an_image_change_restarts_the_container() -> None:
    node = running(make_pod())
    first = node.live["main"].id
    node.post(ev.PodChanged(make_pod(({"name": "main", "image": "busybox:2"},))))
    node.settle()
    assert node.live["main"].id != first


def test_active_deadline_fails_the_pod() -> None:
    node = running(make_pod(activeDeadlineSeconds=60))
    node.sleep(61)
    node.settle()
    assert node.machine.verdict == ("DeadlineExceeded", "Pod was active on the node longer than the specified deadline")
    assert not node.live and not node.sandbox_up


def adopted(state: ContainerState, *, api_attempt: int = 3, code: int = 0) -> Node:
    """A kubelet that comes back to a container of attempt 3."""
    known = {
        "name": "main",
        "image": "busybox",
        "imageID": "x",
        "ready": True,
        "started": True,
        "restartCount": api_attempt,
        "containerID": "nanokube://c9",
        "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}},
    }
    pod = make_pod(status={"phase": "Running", "containerStatuses": [known]})
    node = Node(PodMachine(pod, at(0)))
    node.sandbox_up = True
    record = ContainerRecord("c9", "main", 3, state, "s0", WALL - 10**9, WALL - 10**9, WALL if code else 0, code)
    if state is ContainerState.RUNNING:
        node.live["main"] = record
    node.post(ev.Observed((SandboxRecord("s0", 0, True, ips=("10.0.0.2",)),), (record,), complete=True))
    return node


def test_adopts_a_running_container_as_it_is() -> None:
    node = adopted(ContainerState.RUNNING)
    node.settle()
    slot = node.machine.slots["main"]
    assert node.live["main"].id == "c9" and slot.ready and slot.current is not None and slot.current.attempt == 3
    assert not any(line.startswith(("StartContainer", "KillContainer", "StartSandbox")) for line in node.log)


def test_restarts_what_died_while_away_with_the_next_attempt() -> None:
    node = adopted(ContainerState.EXITED, code=1)
    node.settle()
    assert node.live["main"].attempt == 4


def test_a_container_that_vanished_is_reported_as_unknown_and_started_again() -> None:
    node = adopted(ContainerState.RUNNING)
    node.settle()
    node.live.clear()
    node.post(ev.Observed((SandboxRecord("s0", 0, True),), (), complete=True))
    node.settle()
    slot = node.machine.slots["main"]
    assert slot.previous is not None and (slot.previous.reason, slot.previous.exit_code) == (
        "ContainerStatusUnknown",
        137,
    )
    assert node.live["main"].attempt == 4


def test_a_pod_that_has_ended_in_the_api_is_not_started() -> None:
    node = running(make_pod(status={"phase": "Failed"}))
    assert not node.live and not node.pending and "StartSandbox" not in node.log


def test_a_restart_of_the_kubelet_changes_nothing_for_a_running_pod() -> None:
    node = running(make_pod(("a", "b"), initContainers=[{"name": "init", "image": "a"}]))
    node.exit("init", 0)
    node.settle()
    before = dict(node.live)
    node.restart_kubelet()
    node.settle()
    assert node.live == before and len(before) == 2
    assert all(slot.ready for slot in node.machine.slots.values() if slot.name != "init")


def test_an_init_container_of_an_older_sandbox_runs_again() -> None:
    pod = make_pod(initContainers=[{"name": "init", "image": "a"}])
    node = Node(PodMachine(pod, at(0)))
    node.sandbox_up = True
    done = ContainerRecord("c1", "init", 0, ContainerState.EXITED, "s0", WALL, WALL, WALL)
    sandboxes = (SandboxRecord("s0", 0, False), SandboxRecord("s1", 1, True, ips=("10.0.0.2",)))
    node.post(ev.Observed(sandboxes, (done,), complete=True))
    node.settle()
    assert set(node.live) == {"init"} and node.live["init"].attempt == 1


def test_old_facts_do_not_overwrite_new_ones() -> None:
    node = running(make_pod(restartPolicy="Never"))
    record = node.live["main"]
    node.exit("main", 0)
    node.post(ev.Observed((), (record,)))
    assert node.machine.slots["main"].current.ended  # type: ignore[union-attr]


POLICIES = st.sampled_from(["Always", "OnFailure", "Never"])


@settings(max_examples=300, deadline=None)
@given(
    policy=POLICIES,
    mains=st.integers(1, 3),
    inits=st.lists(st.booleans(), max_size=3),
    script=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 5)), max_size=60),
)
def test_whatever_happens_nothing_runs_twice_and_every_pod_can_be_removed(
    policy: str, mains: int, inits: list[bool], script: list[tuple[int, int]]
) -> None:
    """Results, exits, losses and wishes in any order; the assertions of `Node` are the invariants."""
    first = [
        {"name": f"i{index}", "image": "a", **({"restartPolicy": "Always"} if sidecar else {})}
        for index, sidecar in enumerate(inits)
    ]
    names = tuple(f"m{index}" for index in range(mains))
    node = start(make_pod(names, initContainers=first, restartPolicy=policy))
    for action, number in script:
        match action:
            case 0 | 1 | 2 | 3 if node.pending:
                node.finish(number % len(node.pending))
            case 4 if node.live:
                node.exit(sorted(node.live)[number % len(node.live)], number % 2)
            case 5:
                node.now += 5 * number
                node.post(ev.Woken())
            case 6:
                node.fail ^= {["image", "start", "sandbox", "volumes"][number % 4]}
            case 7 if node.machine.sandbox is not None and node.machine.sandbox.ready and not node.machine.busy:
                node.sandbox_up = False
                node.post(ev.Observed((replace(node.machine.sandbox, ready=False),)))
            case 8 if node.machine.idle():
                sandboxes = (node.machine.sandbox,) if node.machine.sandbox else ()
                node.post(ev.Observed(sandboxes, tuple(node.live.values()), complete=True))
            case 9 if number > 3 and not (node.machine.busy or node.done):
                node.restart_kubelet()
            case 9 if number == 0:
                node.post(
                    ev.PodChanged(
                        make_pod(
                            names,
                            initContainers=first,
                            restartPolicy=policy,
                            metadata={"deletionTimestamp": "2026-01-01T00:00:00Z", "deletionGracePeriodSeconds": 5},
                        )
                    )
                )
    node.fail.clear()
    node.post(ev.PodGone(0))
    for _ in range(200):
        if node.done:
            break
        if node.pending:
            node.finish()
        else:
            node.now += 400
            node.post(ev.Woken())
    assert node.done and not node.live and not node.sandbox_up
