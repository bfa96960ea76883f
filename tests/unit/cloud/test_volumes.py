"""What the cloud decides about block volumes: refusals, one machine at a time, failures, money, and no lost disk."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud import cost
from cloud.core import Core
from cloud.engine import Engine
from cloud.machines import FakeMachines
from cloud.model import Health, Instance, State, standard_types
from cloud.store import Store
from cloud.volumes_core import Sight, VolumeCore
from cloud.volumes_engine import VolumeEngine
from cloud.volumes_media import FakeMedia
from cloud.volumes_model import ATTACH_DELAY, DETACH_DELAY, GIB, MONTH, Volume
from machinery.clock import RealClock
from machinery.errors import AlreadyExists, BadRequest, Conflict, InternalError, NotFound, StatusError
from tests.harness.apiserver import eventually


def machine(name: str, zone: str = "local-a", kind: str = "standard-2x2", **more: Any) -> Instance:
    return Instance(name, "workers", kind, zone, 0.1, created=0.0, phase="running", launched=0.0, **more)


@dataclass
class World:
    """A core, disks in memory, and what is seen of machines."""

    core: VolumeCore
    disks: FakeMedia
    sights: dict[str, Sight]
    now: float = 1000.0
    log: list[tuple[str, str]] = field(default_factory=list)

    def tick(self, seconds: float = 1.0) -> None:
        self.now += seconds
        for effect in self.core.tick(self.now):
            volume = self.core.state.volumes[effect.volume]
            there = volume.attachment
            self.log.append((effect.verb, volume.name))
            try:
                match effect.verb:
                    case "shape":
                        self.disks.shape(volume.id, volume.size)
                        self.core.shaped(volume, volume.size)
                    case "plug":
                        assert there is not None
                        self.disks.plug(volume.id, there.instance)
                        self.core.plugged(volume)
                    case "unplug":
                        assert there is not None
                        free = self.disks.unplug(volume.id, there.instance, self.core.farewell(volume))
                        self.core.unplugged(volume, self.now, busy=not free)
                    case "remove":
                        self.disks.remove(volume.id)
                        self.core.removed(volume, self.now)
            except OSError as error:
                self.core.failed(effect, self.now, str(error))

    def settle(self, passes: int = 4) -> None:
        for _ in range(passes):
            self.tick()

    def volume(self, name: str = "data", size: int = GIB, zone: str = "local-a") -> Volume:
        made = self.core.create(name, size, zone, "standard", self.now)
        self.tick()
        return made

    def attached(self, name: str = "data", instance: str = "worker-1") -> Volume:
        made = self.volume(name)
        self.core.attach(made, instance, self.now)
        self.settle()
        assert made.state == "in-use"
        return made


def world() -> World:
    instances = [
        machine("worker-1"),
        machine("worker-2"),
        machine("far-1", "local-b"),
        machine("small-1", kind="standard-1x1"),
        machine("paper-1", hollow=True),
    ]
    state = State("c", 0.0, types=standard_types(), instances={each.name: each for each in instances})
    sights: dict[str, Sight] = {each.name: "working" for each in instances}
    return World(VolumeCore(state, lambda name: sights.get(name, "gone")), FakeMedia(), sights)


def test_a_volume_is_made_in_whole_gibibytes_once_per_name() -> None:
    w = world()
    made = w.volume(size=GIB + 1)
    assert (made.state, made.size, w.disks.sizes) == ("available", 2 * GIB, {made.id: 2 * GIB})
    assert w.core.create("data", 2 * GIB, "local-a", "standard", w.now) is made
    assert w.core.find("data") is w.core.find(made.id) is made
    with pytest.raises(AlreadyExists):
        w.core.create("data", 3 * GIB, "local-a", "standard", w.now)
    assert w.core.create("other", GIB, "local-a", "standard", w.now).id != made.id


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        pytest.param(("", GIB, "local-a", "standard"), BadRequest, id="no-name"),
        pytest.param(("a/b", GIB, "local-a", "standard"), BadRequest, id="name-as-path"),
        pytest.param((".", GIB, "local-a", "standard"), BadRequest, id="dot"),
        pytest.param(("x" * 129, GIB, "local-a", "standard"), BadRequest, id="long-name"),
        pytest.param(("a", 0, "local-a", "standard"), BadRequest, id="no-size"),
        pytest.param(("a", -5, "local-a", "standard"), BadRequest, id="negative"),
        pytest.param(("a", 1 << 62, "local-a", "standard"), BadRequest, id="too-big"),
        pytest.param(("a", GIB, "mars-1", "standard"), BadRequest, id="zone"),
        pytest.param(("a", GIB, "local-a", "floppy"), BadRequest, id="type"),
    ],
)
def test_bad_volumes_are_refused(request_: tuple[str, int, str, str], error: type[StatusError]) -> None:
    w = world()
    with pytest.raises(error):
        w.core.create(*request_, w.now)
    assert not w.core.state.volumes


def test_attaching_takes_its_time_and_is_for_one_machine() -> None:
    w = world()
    made = w.volume()
    w.core.attach(made, "worker-1", w.now)
    w.tick(ATTACH_DELAY / 2)
    assert (made.state, w.disks.plugged) == ("attaching", set())
    w.tick(ATTACH_DELAY)
    assert (made.state, w.disks.plugged) == ("in-use", {(made.id, "worker-1")})
    w.core.attach(made, "worker-1", w.now)  # once more is no change
    with pytest.raises(Conflict, match="already attached to instance worker-1"):
        w.core.attach(made, "worker-2", w.now)
    with pytest.raises(Conflict, match="is attached to worker-1"):
        w.core.delete(made)
    w.core.detach(made, "worker-2", w.now)  # it is not there: fine
    assert made.state == "in-use"
    w.core.detach(made, "worker-1", w.now)
    with pytest.raises(Conflict, match="still being detached"):
        w.core.attach(made, "worker-1", w.now)
    w.tick(DETACH_DELAY)
    assert (made.state, w.disks.plugged) == ("available", set())


@pytest.mark.parametrize(
    ("instance", "error", "text"),
    [
        pytest.param("far-1", BadRequest, "is in zone local-a, instance far-1 in zone local-b", id="zone"),
        pytest.param("nobody", NotFound, 'instance "nobody" not found', id="unknown"),
        pytest.param("paper-1", BadRequest, "simulated", id="hollow"),
    ],
)
def test_not_every_machine_can_have_a_volume(instance: str, error: type[StatusError], text: str) -> None:
    w = world()
    made = w.volume()
    with pytest.raises(error, match=text):
        w.core.attach(made, instance, w.now)
    assert made.attachment is None


def test_a_machine_that_was_added_by_hand_is_in_the_first_zone() -> None:
    w = world()
    w.sights["by-hand"] = "working"
    w.attached(instance="by-hand")
    far = w.volume("far", zone="local-b")
    with pytest.raises(BadRequest, match="instance by-hand in zone local-a"):
        w.core.attach(far, "by-hand", w.now)


def test_a_machine_has_only_so_many_slots() -> None:
    w = world()
    volumes = [w.volume(f"v{number}") for number in range(9)]
    for each in volumes[:8]:
        w.core.attach(each, "small-1", w.now)
    with pytest.raises(StatusError, match="as many as it can have") as refused:
        w.core.attach(volumes[8], "small-1", w.now)
    assert refused.value.code == 429
    w.settle()
    w.core.detach(volumes[0], "small-1", w.now)
    w.settle()
    w.core.attach(volumes[8], "small-1", w.now)


def test_a_working_machine_keeps_what_it_has_mounted_unless_forced() -> None:
    w = world()
    made = w.attached()
    used = (made.id, "worker-1")
    w.disks.mounted.add(used)
    w.core.detach(made, "worker-1", w.now)
    w.settle(5)
    assert made.state == "detaching"
    assert made.attachment is not None
    assert "still uses it" in made.attachment.message
    w.core.detach(made, "", w.now, force=True)
    w.tick()
    assert (made.state, w.disks.pulled) == ("available", [used])


@pytest.mark.parametrize("sight", ["broken", "gone"])
def test_a_machine_that_does_not_work_cannot_keep_a_volume(sight: Sight) -> None:
    w = world()
    made = w.attached()
    w.disks.mounted.add((made.id, "worker-1"))
    w.sights["worker-1"] = sight
    if sight == "broken":  # it is only pulled when somebody asks: the machine may come back
        w.settle()
        assert made.state == "in-use"
        w.core.detach(made, "worker-1", w.now)
    w.settle()
    assert made.state == "available"
    w.core.attach(made, "worker-2", w.now)
    w.settle()
    assert w.disks.plugged == {(made.id, "worker-2")}


def test_nothing_is_let_go_while_nobody_has_looked_at_the_machines() -> None:
    w = world()
    made = w.attached()
    w.sights["worker-1"] = "unknown"
    w.settle()
    assert made.state == "in-use"
    w.disks.mounted.add((made.id, "worker-1"))
    w.core.detach(made, "worker-1", w.now)  # as a cloud finds it that was started anew
    w.settle()
    assert (made.state, w.disks.pulled) == ("detaching", [])


def test_rehearsed_failures() -> None:
    w = world()
    made = w.volume()
    w.core.fail(made, "attach-fails")
    with pytest.raises(InternalError, match="could not be attached"):
        w.core.attach(made, "worker-1", w.now)
    w.core.fail(made, "attach-hangs")
    w.core.attach(made, "worker-1", w.now)
    w.settle(100)
    assert made.state == "attaching"
    w.core.fail(made, "")
    w.tick()
    assert made.state == "in-use"
    w.core.fail(made, "detach-hangs")
    w.core.detach(made, "worker-1", w.now)
    w.settle(100)
    assert made.state == "detaching"
    w.core.detach(made, "worker-1", w.now, force=True)
    w.tick()
    assert made.state == "available"
    with pytest.raises(BadRequest, match="known: attach-hangs"):
        w.core.fail(made, "burns")


def test_what_fails_is_told_and_tried_again() -> None:
    w = world()
    w.disks.broken = {"shape", "plug", "remove"}
    made = w.core.create("data", GIB, "local-a", "standard", w.now)
    w.settle()
    assert (made.state, made.message) == ("creating", "shape is out of order")
    w.core.attach(made, "worker-1", w.now)
    w.disks.broken = {"plug", "remove"}
    w.settle(10)
    assert made.attachment is not None
    assert (made.state, made.attachment.message) == ("attaching", "plug is out of order")
    w.disks.broken = {"remove"}
    w.settle(10)
    assert (made.state, made.attachment.message) == ("in-use", "")
    w.core.detach(made, "", w.now)
    w.settle()
    w.core.delete(made)
    w.settle()
    assert made.state == "deleting"
    w.disks.broken = set()
    w.settle(10)
    assert not w.core.state.volumes
    assert not w.disks.sizes


def test_growing_never_shrinks_and_works_while_attached() -> None:
    w = world()
    made = w.attached()
    w.core.expand(made, 3 * GIB - 1, w.now)
    w.settle()
    assert (made.size, made.made, w.disks.sizes[made.id], made.state) == (3 * GIB, 3 * GIB, 3 * GIB, "in-use")
    with pytest.raises(BadRequest, match="cannot become smaller"):
        w.core.expand(made, GIB, w.now)


def test_the_bill_follows_the_size_and_outlives_the_volume() -> None:
    w = world()
    state, start = w.core.state, w.now
    made = w.core.create("data", 10 * GIB, "local-a", "standard", start)
    month = start + MONTH
    assert made.cost(month) == pytest.approx(0.45)
    w.core.expand(made, 20 * GIB, month)
    assert made.cost(month + MONTH) == pytest.approx(0.45 + 0.90)
    assert cost.by_group(state, month)[cost.VOLUMES].running == 1
    before = cost.total(state, month + MONTH).total
    w.core.delete(made)
    w.core.removed(made, month + MONTH)
    assert cost.total(state, month + 9 * MONTH).total - before == pytest.approx(
        sum(each.price * 8 * MONTH / 3600 for each in state.instances.values())
    )


def test_the_state_file_keeps_volumes(tmp_path: Path) -> None:
    w = world()
    made = w.attached()
    Store(tmp_path / "cloud.json").save(w.core.state)
    found = Store(tmp_path / "cloud.json").load()
    assert found is not None
    assert found.volumes == {made.id: made}


step = st.tuples(
    st.sampled_from(["create", "attach", "detach", "force", "delete", "expand", "mount", "unmount", "die", "mend"]),
    st.sampled_from(["a", "b"]),
    st.sampled_from(["worker-1", "worker-2"]),
)


@given(st.lists(step, max_size=40))
def test_whatever_happens_a_disk_is_in_one_machine_and_never_pulled_from_a_working_one(
    steps: list[tuple[str, str, str]],
) -> None:
    w = world()
    for verb, name, instance in steps:
        with contextlib.suppress(StatusError):
            if verb == "create":
                w.core.create(name, GIB, "local-a", "standard", w.now)
            elif verb == "die":
                w.sights[instance] = "broken"
            elif verb == "mend":
                w.sights[instance] = "working"
            else:
                volume = w.core.find(name)
                match verb:
                    case "attach":
                        w.core.attach(volume, instance, w.now)
                    case "detach" | "force":
                        w.core.detach(volume, instance, w.now, force=verb == "force")
                    case "delete":
                        w.core.delete(volume)
                    case "expand":
                        w.core.expand(volume, volume.size + GIB, w.now)
                    case "mount" if (volume.id, instance) in w.disks.plugged:
                        w.disks.mounted.add((volume.id, instance))
                    case "unmount":
                        w.disks.mounted.discard((volume.id, instance))
        pulled = len(w.disks.pulled)
        forced = {each.id for each in w.core.state.volumes.values() if each.attachment and each.attachment.force}
        w.tick()
        plugged = [disk for disk, _ in w.disks.plugged]
        assert len(plugged) == len(set(plugged))
        for disk, where in w.disks.pulled[pulled:]:
            assert disk in forced or w.sights[where] != "working"
    for each in w.core.state.volumes.values():
        w.core.detach(each, "", w.now, force=True)
    w.settle(20)
    assert not w.disks.plugged
    assert all(each.state == "available" and each.made == each.size for each in w.core.state.volumes.values())


@contextlib.asynccontextmanager
async def engine(tmp_path: Path) -> AsyncIterator[tuple[VolumeEngine, FakeMedia, FakeMachines]]:
    state = State("c", 0.0, types=standard_types(), instances={"worker-1": machine("worker-1")})
    machines, disks, clock = FakeMachines({"worker-1": Health("workers")}), FakeMedia(), RealClock(50.0)
    below = Engine(Core(state), machines, Store(tmp_path / "cloud.json"), clock)
    made = VolumeEngine(below, disks, clock)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(below.run()), group.create_task(made.run())]
        yield made, disks, machines
        for each in tasks:
            each.cancel()


async def test_the_engine_carries_orders_out_and_remembers_them(tmp_path: Path) -> None:
    async with engine(tmp_path) as (made, disks, machines):
        await eventually(lambda: made._machines.looked)
        volume = made.core.create("data", GIB, "local-a", "standard", made.now())
        made.core.attach(volume, "worker-1", made.now())
        made.wake()
        await eventually(lambda: volume.state == "in-use")
        assert disks.plugged == {(volume.id, "worker-1")}
        saved = Store(tmp_path / "cloud.json").load()
        assert saved is not None
        assert saved.volumes[volume.id].state == "in-use"
        disks.mounted.add((volume.id, "worker-1"))
        machines.there.clear()  # taken away by hand
        await eventually(lambda: volume.state == "available")
        assert not disks.plugged
