"""What `nanokube cloud` prints, and the cloud a cluster starts with."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from threading import Event, Thread

import pytest

from cli import cloud, cloud_flags, cloud_setup, output
from cli.errors import CommandError
from cli.layout import ClusterConfig, ClusterPaths, NodeConfig
from cloud.app import serving
from cloud.core import Core
from cloud.engine import Engine
from cloud.machines import FakeMachines
from cloud.machines_service import MachineService
from cloud.model import Health, State, standard_types
from cloud.orders import Orders
from cloud.provider import CloudProvider
from cloud.requests import Requests
from cloud.service import CloudService
from cloud.store import Store
from cloud.volumes_engine import VolumeEngine
from cloud.volumes_media import FakeMedia
from machinery.clock import RealClock
from proto.cloud.v1 import cloud_pb2 as pb
from proto.cloud.v1 import machines_pb2 as machines_pb
from tests.harness.nanokube import eventually


def options(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    cloud_flags.add(parser)
    return parser.parse_args(arguments)


@pytest.fixture
def paths(tmp_path: Path) -> Iterator[ClusterPaths]:
    """A cluster's folder in which a cloud with fake machines answers, in another thread with a loop of its own."""
    paths = ClusterPaths(tmp_path)
    paths.make()
    up, stop = Event(), asyncio.Event()
    loop = asyncio.new_event_loop()

    async def serve() -> None:
        machines = FakeMachines()
        machines.there["small-9"] = Health()
        engine = Engine(
            Core(State("c", 0.0, types=standard_types())), machines, Store(paths.cloud_state), RealClock(100)
        )
        requests = Requests(engine.core)
        balancer = pb.LoadBalancer(namespace="default", name="web", address="10.251.0.1", ports=["80/TCP"])
        volumes = VolumeEngine(engine, FakeMedia(), RealClock(100))
        service = CloudService(requests, engine, lambda: [balancer], volumes)
        single = MachineService(Orders(engine.core), engine, 1 << 30)
        async with serving(f"unix:{paths.cloud_socket}", CloudProvider(requests, engine.wake), service, single):
            running = [asyncio.create_task(engine.run()), asyncio.create_task(volumes.run())]
            up.set()
            await stop.wait()
            for each in running:
                each.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await each

    thread = Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    assert up.wait(10)
    try:
        yield paths
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        loop.close()


def test_the_life_of_a_group(paths: ClusterPaths, capsys: pytest.CaptureFixture[str]) -> None:
    def shown(*arguments: str) -> str:
        assert cloud.run(paths, options(*arguments)) == 0
        return capsys.readouterr().out

    shown("create-group", "small", "--cpu", "500m", "--memory", "1Gi", "--desired", "2", "--boot-delay", "0", "--spot")
    header, row = shown("groups").splitlines()
    assert header.split()[:4] == ["NAME", "TYPE", "KIND", "MIN"]
    assert row.split()[:7] == ["small", "standard-0.5x1", "real,", "spot", "0", "4", "2"]
    eventually(lambda: len(json.loads(shown("instances", "small", "-o", "json"))["instances"]) == 2, "two instances")
    shown("resize", "small", "1", "--heal-after", "60")
    with pytest.raises(CommandError, match="between min 0 and max 4"):
        shown("resize", "small", "5")
    assert json.loads(shown("groups", "-o", "json"))["groups"][0]["healAfter"] == 60
    shown("resize", "small", "--interruptions", "0.5", "--autoscaling", "scale-down-unneeded-time=60")
    told = json.loads(shown("groups", "-o", "json"))["groups"][0]
    assert (told["interruptions"], told["autoscaling"]["scaleDownUnneededTime"]) == (0.5, 60)
    assert "scaleDownUnreadyTime" not in told["autoscaling"]
    shown("spot-market", "--interruptions", "2", "--seed", "3")
    assert "total" in shown("cost")
    assert "standard-2x2" in shown("types")
    assert shown("load-balancers").splitlines()[1].split() == ["default", "web", "10.251.0.1", "80/TCP", "-"]
    shown("fail", "small", "never-boots", "--count", "2")
    assert "never-boots" in shown("groups")
    shown("delete-group", "small")
    assert len(shown("groups").splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        pytest.param(("resize", "none", "1"), 'node group "none" not found', id="no group"),
        pytest.param(("resize", "none"), "wants a size", id="nothing to change"),
        pytest.param(("interrupt", "none"), 'instance "none" not found', id="no instance"),
        pytest.param(("create-group", "Big"), "name", id="name"),
        pytest.param(("create-group", "big", "--cpu", "1"), "both", id="half a type"),
        pytest.param(("create-group", "big", "--cpu", "x", "--memory", "1Gi"), "instance type", id="no quantity"),
        pytest.param(("create-group", "big", "--cpu", "-1", "--memory", "1Gi"), "size", id="negative"),
        pytest.param(("create-group", "big", "--labels", "x"), "KEY=VALUE", id="label"),
        pytest.param(("create-group", "big", "--taints", "x"), "EFFECT", id="taint"),
        pytest.param(("create-group", "big", "--interruptions", "1"), "only spot", id="interrupted on demand"),
        pytest.param(("create-group", "big", "--autoscaling", "best=1"), "none of", id="unknown flag"),
        pytest.param(("create-group", "big", "--autoscaling", "max-node-startup-time=x"), "no value", id="no time"),
        pytest.param(
            ("create-group", "big", "--autoscaling", "ignore-daemonsets-utilization=1"), "no value", id="bool"
        ),
        pytest.param(("spot-market", "--notice", "-1"), "notice must", id="negative notice"),
        pytest.param(("spot-market", "--seed", "-1"), "64 bits", id="negative seed"),
    ],
)
def test_refusals(paths: ClusterPaths, arguments: tuple[str, ...], words: str) -> None:
    with pytest.raises(CommandError, match=words):
        cloud.run(paths, options(*arguments))


def test_the_life_of_a_volume(paths: ClusterPaths, capsys: pytest.CaptureFixture[str]) -> None:
    def shown(*arguments: str) -> str:
        assert cloud.run(paths, options(*arguments)) == 0
        return capsys.readouterr().out

    def states(wanted: str) -> None:
        def told() -> bool:
            state: str = json.loads(shown("volumes", "data", "-o", "json"))["volumes"][0]["state"]
            return state == wanted

        eventually(told, f"the volume to be {wanted}")

    assert "0.045" in shown("volume-types")
    shown("create-volume", "data", "--size", "1500Mi")
    states("available")
    shown("fail-volume", "data", "attach-fails")
    with pytest.raises(CommandError, match="could not be attached"):
        shown("attach", "data", "small-9")
    shown("fail-volume", "data", "none")
    shown("attach", "data", "small-9")
    states("in-use")
    with pytest.raises(CommandError, match="is attached to small-9"):
        shown("delete-volume", "data")
    shown("expand-volume", "data", "3Gi")
    assert shown("volumes").splitlines()[1].split()[1:7] == ["data", "3Gi", "local-a", "standard", "in-use", "small-9"]
    assert "(volumes)" in shown("cost")
    shown("detach", "data", "--force")
    states("available")
    shown("delete-volume", "data")
    eventually(lambda: len(shown("volumes").splitlines()) == 1, "the volume to go")
    with pytest.raises(CommandError, match='volume "data" not found'):
        shown("volumes", "data")
    with pytest.raises(CommandError, match="size"):
        shown("create-volume", "data", "--size", "much")


def test_without_a_cloud_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="does not answer"):
        cloud.run(ClusterPaths(tmp_path), options("groups"))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (59.9, "59s"), (60, "1m"), (192, "3m12s"), (7500, "2h5m"), (90000, "1d1h"), (86400, "1d")],
)
def test_durations(seconds: float, text: str) -> None:
    assert output.duration(seconds) == text


def test_a_cluster_starts_with_its_workers_as_a_group_and_keeps_what_it_has(tmp_path: Path) -> None:
    paths = ClusterPaths(tmp_path)
    config = ClusterConfig("demo", 0, nodes=[NodeConfig("worker-1", 1), NodeConfig("worker-2", 2)])
    cloud_setup.enroll(config)
    assert config.nodes[0].group == "workers"
    cloud_setup.ensure(config, paths)
    state = Store(paths.cloud_state).load()
    assert state is not None
    group = state.groups["workers"]
    assert (group.type, group.min, group.max, group.desired, group.next) == ("standard-2x2", 2, 6, 2, 3)
    assert {each.name: each.phase for each in state.instances.values()} == {
        "worker-1": "running",
        "worker-2": "running",
    }
    state.groups.clear()
    Store(paths.cloud_state).save(state)
    cloud_setup.ensure(config, paths)
    kept = Store(paths.cloud_state).load()
    assert kept is not None
    assert kept.groups == {}


def test_single_machines(paths: ClusterPaths, capsys: pytest.CaptureFixture[str]) -> None:
    def printed(*arguments: str) -> str:
        assert cloud.run(paths, options(*arguments)) == 0
        return capsys.readouterr().out

    offered = printed("offerings").splitlines()
    assert offered[0].split() == ["TYPE", "ZONE", "CAPACITY", "CPU", "MEMORY", "PODS", "$/HOUR", "AVAILABLE"]
    assert len(offered) == 1 + len(standard_types()) * 3 * 2
    printed("outage", "--zone", "local-a", "--seconds", "100000")
    assert printed("outages").splitlines()[1].split()[:3] == ["*", "local-a", "*"]
    assert {row.split()[-1] for row in printed("offerings").splitlines() if " local-a " in row} == {"no"}
    printed("outage", "--over")
    assert len(printed("outages").splitlines()) == 1
    order = machines_pb.LaunchMachineRequest(
        token="claim",
        offerings=[machines_pb.Offering(instance_type="standard-1x1", zone="local-b", capacity_type="spot")],
    )
    assert cloud.ask(paths, "LaunchMachine", order).machine.name == "machine-1"
    row = printed("machines").splitlines()[1].split()
    assert row[:5] == ["machine-1", "standard-1x1", "local-b", "spot", "real"]
    printed("fail-machines", "never-boots", "--count", "1")
    printed("delete-instance", "machine-1")
    eventually(lambda: len(printed("machines").splitlines()) == 1, "no machine")
    with pytest.raises(CommandError, match="zone"):
        cloud.run(paths, options("outage", "--zone", "moon"))
