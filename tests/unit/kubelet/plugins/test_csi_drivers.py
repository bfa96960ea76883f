"""Which drivers are taken in, and what the Node says of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import pytest

from api.models import core_v1
from kubelet.plugins.csi_client import go_code, socket_target
from kubelet.plugins.csi_node import NODE_IDS, node_patch, read_ids
from kubelet.plugins.drivers import CsiDrivers, UnknownDriver
from kubelet.plugins.watcher import Refused
from machinery.errors import StatusError
from tests.harness.csi_driver import NAME, FakeDriver


class Record:
    def __init__(self) -> None:
        self.drivers: list[str] = []
        self.away = False

    async def install(self, driver: str, info: Any) -> None:
        if self.away:
            raise StatusError("away")
        self.drivers.append(driver)

    async def uninstall(self, driver: str) -> None:
        if self.away:
            raise StatusError("away")
        self.drivers.remove(driver)


@pytest.fixture
def folder() -> Iterator[Path]:
    with TemporaryDirectory(prefix="nk-csi-") as name:  # short: Unix sockets have short names
        yield Path(name)


@pytest.mark.parametrize(
    ("versions", "taken"),
    [(["1.0.0"], True), (["0.3.0", "v1.9"], True), (["1"], True), (["2.0.0"], False), ([], False), (["11.0"], False)],
)
async def test_versions(folder: Path, versions: list[str], taken: bool) -> None:
    drivers = CsiDrivers(Record())
    async with FakeDriver(folder / "d").serve() as endpoint:
        if taken:
            await drivers.register(NAME, endpoint, versions)
            assert drivers.get(NAME).stages
        else:
            with pytest.raises(Refused, match="none of the versions"):
                await drivers.register(NAME, endpoint, versions)
            with pytest.raises(UnknownDriver, match="not found in the list of registered CSI drivers"):
                drivers.get(NAME)
        await drivers.close()


async def test_what_stands_against_a_driver_is_said(folder: Path) -> None:
    record = Record()
    drivers, driver = CsiDrivers(record), FakeDriver(folder / "d")
    driver.failures["info"].append(("INTERNAL", "no machine"))
    async with driver.serve() as endpoint:
        with pytest.raises(Refused, match="rpc error: code = Internal desc = no machine"):
            await drivers.register(NAME, endpoint, ["1.0.0"])
        record.away = True
        with pytest.raises(Refused, match="away"):
            await drivers.register(NAME, endpoint, ["1.0.0"])
        record.away = False
        await drivers.register(NAME, endpoint, ["1.0.0"])
        record.away = True
        with pytest.raises(StatusError):
            await drivers.deregister(NAME, endpoint)
        assert drivers.get(NAME), "who cannot be struck off is still here"
        record.away = False
        await drivers.deregister(NAME, "/another.sock")
        assert drivers.get(NAME), "another socket's leave is not ours"
        await drivers.deregister(NAME, endpoint)
        await drivers.deregister(NAME, endpoint)
    assert record.drivers == []


def test_names_of_codes_are_gos() -> None:
    assert [go_code(name) for name in ("INTERNAL", "DEADLINE_EXCEEDED", "CANCELLED", "OK")] == [
        "Internal",
        "DeadlineExceeded",
        "Canceled",
        "OK",
    ]


@pytest.mark.parametrize("endpoint", ["/a/b.sock", "unix:/a/b.sock", "unix:///a/b.sock"])
def test_endpoints(endpoint: str) -> None:
    assert socket_target(endpoint) == "unix:/a/b.sock"


def node(labels: dict[str, str] | None = None, ids: str = "") -> core_v1.Node:
    meta = {"name": "n", "labels": labels or {}, "annotations": {NODE_IDS: ids} if ids else {}}
    return msgspec.convert({"metadata": meta}, core_v1.Node)


@pytest.mark.parametrize(
    ("found", "node_id", "topology", "patch"),
    [
        pytest.param(node(), "i", {}, {"annotations": {NODE_IDS: '{"d":"i"}'}}, id="first"),
        pytest.param(
            node(ids='{"a":"1"}'),
            "i",
            {"zone": "z"},
            {"annotations": {NODE_IDS: '{"a":"1","d":"i"}'}, "labels": {"zone": "z"}},
            id="second",
        ),
        pytest.param(node({"zone": "z"}, '{"d":"i"}'), "i", {"zone": "z"}, None, id="nothing-new"),
        pytest.param(node(ids='{"d":"i"}'), None, {}, {"annotations": {NODE_IDS: None}}, id="the-last-leaves"),
        pytest.param(node(), None, {}, None, id="leaves-unknown"),
        pytest.param(node(ids="not json"), "i", {}, {"annotations": {NODE_IDS: '{"d":"i"}'}}, id="unreadable"),
    ],
)
def test_what_a_node_says_of_its_drivers(
    found: core_v1.Node, node_id: str | None, topology: dict[str, str], patch: dict[str, Any] | None
) -> None:
    assert node_patch(found, "d", node_id, topology) == patch


def test_a_label_is_not_overwritten() -> None:
    with pytest.raises(Refused, match="topology value collision"):
        node_patch(node({"zone": "a"}), "d", "i", {"zone": "b"})


@pytest.mark.parametrize("text", ["", "[]", "{", '{"a": 1}'])
def test_ids_that_cannot_be_read_are_none(text: str) -> None:
    assert read_ids(text) == {}
