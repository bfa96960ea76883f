"""What every kind of machine promises: asked twice is asked once, the dead are seen, and failures are told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from cloud.hollow import BothKinds, HollowMachines
from cloud.machines import FakeMachines, MachineError, Machines, NoCapacity, Order
from cloud.model import MAX_REAL, Group, Health, Instance, Taint, standard_types
from cloud.node import Metadata, Node
from cloud.supervised import SupervisedMachines
from machinery.meta import ObjectKey

GROUP = Group("g", "standard-2x4", 0, 3, 1, "g", labels={"team": "x"}, taints=[Taint("a", "NoSchedule", "b")])


def order(name: str = "g-1", *, hollow: bool = False) -> Order:
    instance = Instance(name, "g", "standard-2x4", "z", 0.1, created=0.0, hollow=hollow)
    return Order(instance, GROUP, standard_types()["standard-2x4"])


class FakeSupervisor:
    """The control socket, with nodes as a dictionary."""

    def __init__(self) -> None:
        self.nodes: dict[str, dict[str, Any]] = {}
        self.commands: list[dict[str, Any]] = []

    def answer(self, request: dict[str, Any]) -> Any:
        self.commands.append(request)
        match request.pop("command"):
            case "machines":
                return {"ok": list(self.nodes.values())}
            case "node-add":
                if request["node"] in self.nodes:
                    return {"error": "cluster c already has a node"}
                self.nodes[request["node"]] = {"node": request["node"], "group": request["group"], "healthy": True}
            case "node-kill":
                self.nodes[request["node"]]["healthy"] = False
            case "node-remove":
                if self.nodes.pop(request["node"], None) is None:
                    return {"error": "cluster c has no such node"}
        return {"ok": None}

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(msgspec.json.encode(self.answer(msgspec.json.decode(await reader.readline()))) + b"\n")
        writer.close()


class FakeCluster:
    """The two things a hollow machine needs of a cluster: a lister of Nodes, and a client that annotates them."""

    def __init__(self) -> None:
        self.annotations: dict[str, dict[str, str]] = {}
        self.lister = self

    def get(self, key: ObjectKey) -> Node | None:
        return Node(Metadata(key.name, annotations=self.annotations.get(key.name)))

    async def patch(self, kind: Any, name: str, patch: dict[str, Any]) -> None:
        self.annotations[name] = patch["metadata"]["annotations"]


@pytest.fixture(params=["fake", "supervised", "hollow", "both"])
async def machines(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Machines]:
    supervisor, cluster = FakeSupervisor(), FakeCluster()
    socket, nodes = tmp_path / "s", SimpleNamespace(lister=cluster)
    server = await asyncio.start_unix_server(supervisor.serve, str(socket))
    real = SupervisedMachines(socket)
    hollow = HollowMachines(tmp_path / "hollow.json", cluster, nodes, real.play_hollow)  # type: ignore[arg-type]
    made: dict[str, Machines] = {
        "fake": FakeMachines(),
        "supervised": real,
        "hollow": hollow,
        "both": BothKinds(real, hollow),
    }
    async with server:
        yield made[request.param]


async def test_machines_keep_their_promises(machines: Machines) -> None:
    first, second = order(), order("g-2", hollow=True)
    assert await machines.look() == {}
    for _ in range(2):
        await machines.launch(first)
    await machines.launch(second)
    assert await machines.look() == {"g-1": Health("g"), "g-2": Health("g")}
    await machines.kill(second.instance)
    assert (await machines.look())["g-2"] == Health("g", healthy=False)
    for _ in range(2):
        await machines.terminate(second.instance)
    assert await machines.look() == {"g-1": Health("g")}


async def test_a_machine_is_ordered_with_the_size_and_labels_of_its_group(tmp_path: Path) -> None:
    supervisor = FakeSupervisor()
    async with await asyncio.start_unix_server(supervisor.serve, str(tmp_path / "s")):
        await SupervisedMachines(tmp_path / "s").launch(order())
    ordered = supervisor.commands[-1]
    assert (ordered["cpu"], ordered["memory"], ordered["max_pods"], ordered["taints"]) == (
        "2",
        "4Gi",
        110,
        "a=b:NoSchedule",
    )
    assert "topology.kubernetes.io/zone=z" in ordered["labels"].split(",")
    assert "team=x" in ordered["labels"].split(",")


async def test_a_full_cluster_has_no_capacity(tmp_path: Path) -> None:
    supervisor = FakeSupervisor()
    supervisor.nodes = {f"x-{n}": {"node": f"x-{n}", "group": "", "healthy": True} for n in range(MAX_REAL)}
    async with await asyncio.start_unix_server(supervisor.serve, str(tmp_path / "s")):
        with pytest.raises(NoCapacity, match="200"):
            await SupervisedMachines(tmp_path / "s").launch(order())


async def test_a_stranger_of_the_name_is_neither_adopted_nor_removed(tmp_path: Path) -> None:
    supervisor = FakeSupervisor()
    supervisor.nodes["g-1"] = {"node": "g-1", "group": "", "healthy": True}
    async with await asyncio.start_unix_server(supervisor.serve, str(tmp_path / "s")):
        machines = SupervisedMachines(tmp_path / "s")
        with pytest.raises(MachineError, match="already has"):
            await machines.launch(order())
        await machines.terminate(order().instance)
    assert "g-1" in supervisor.nodes


@pytest.mark.parametrize(
    "answer", [b"", b"{", b"[]\n", b'{"ok": [1]}\n', b'{"ok": [{"node": "x"}]}\n', b'{"error": "no"}\n']
)
async def test_a_supervisor_that_talks_nonsense(tmp_path: Path, answer: bytes) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(answer)
        writer.close()

    async with await asyncio.start_unix_server(serve, str(tmp_path / "s")):
        with pytest.raises(MachineError):
            await SupervisedMachines(tmp_path / "s").look()
    with pytest.raises(MachineError, match="does not answer"):
        await SupervisedMachines(tmp_path / "none").look()


async def test_a_damaged_roster_is_no_empty_one(tmp_path: Path) -> None:
    (tmp_path / "hollow.json").write_text("[{")
    cluster = FakeCluster()
    nodes = SimpleNamespace(lister=cluster)
    machines = HollowMachines(tmp_path / "hollow.json", cluster, nodes, lambda: asyncio.sleep(0))  # type: ignore[arg-type]
    with pytest.raises(MachineError):
        await machines.look()
    assert (tmp_path / "hollow.json").read_text() == "[{"
