"""Whatever is killed or frozen under load: no acknowledged write is lost, watches stay ordered, unique, reliable."""

from __future__ import annotations

import os
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli import layout
from tests.harness.nanokube import Cluster, eventually
from tests.robustness.faults import FAULTS, Fault
from tests.robustness.history import History
from tests.robustness.traffic import COLLECTION, PREFIX, Rest, Watcher, Writer
from tests.robustness.validate import violations

WRITERS, WATCHERS, ROUNDS = 6, 3, 2
CALM = 40  # acknowledged writes before and after each fault


@pytest.fixture(scope="module")
def cluster(machine: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    made = Cluster("robust", tmp_path_factory.mktemp("home"))
    made.nanokube("down")
    made.nanokube("up", "--only", "apiserver")
    yield made
    made.nanokube("down")


def connect(cluster: Cluster) -> Rest:
    paths = layout.ClusterPaths.of(cluster.name)
    config = layout.load(paths)
    assert config is not None
    context = ssl.create_default_context(cafile=str(paths.pki / "ca.crt"))
    context.load_cert_chain(paths.pki / "admin.crt", paths.pki / "admin.key")
    return Rest(config.rest_port, context)


def acknowledged(history: History) -> int:
    return sum(each.revision is not None for each in history.operations)


def flows(history: History) -> None:
    """Wait until writes are acknowledged again."""
    before = acknowledged(history)
    eventually(lambda: acknowledged(history) > before + CALM, "traffic to flow", 60)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_fault(cluster: Cluster, fault: Fault, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    seed = int(os.environ.get("ROBUSTNESS_SEED") or "1")
    rest = connect(cluster)
    request.addfinalizer(rest.close)
    code, listed = rest.call("GET", COLLECTION)
    assert code == 200
    for item in listed["items"]:
        if item["metadata"]["name"].startswith(PREFIX):
            rest.call("DELETE", f"{COLLECTION}/{item['metadata']['name']}")
    start = int(rest.call("GET", COLLECTION)[1]["metadata"]["resourceVersion"])
    history, stop_writing, stop_watching = History(), threading.Event(), threading.Event()
    watchers = [Watcher(number, connect(cluster), history, start, stop_watching) for number in range(WATCHERS)]
    writers = [Writer(number, connect(cluster), history, stop_writing, seed) for number in range(WRITERS)]
    try:
        for thread in (*watchers, *writers):
            thread.start()
        for _ in range(ROUNDS):
            flows(history)
            fault.inject(cluster)
        flows(history)
    finally:
        stop_writing.set()
        for writer in writers:
            writer.join(30)
    assert not any(writer.is_alive() for writer in writers)
    rest.close()  # the old connection may lead to a process that is gone
    _, listed = rest.call("GET", COLLECTION)
    history.final_revision = int(listed["metadata"]["resourceVersion"])
    for item in listed["items"]:
        metadata = item["metadata"]
        if metadata["name"].startswith(PREFIX):
            history.final[metadata["name"]] = (item["data"]["value"], int(metadata["resourceVersion"]))
    newest = max((revision for _, revision in history.final.values()), default=start)
    eventually(lambda: all(watcher.revision >= newest for watcher in watchers), "watches to catch up", 30)
    stop_watching.set()
    for watcher in watchers:
        watcher.join(30)
    history.save(tmp_path / "history.json")
    found = violations(history)
    assert not found, f"seed {seed}, record {tmp_path / 'history.json'}:\n" + "\n".join(found[:20])
    assert acknowledged(history) > 3 * CALM
