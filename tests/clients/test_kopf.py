"""A kopf operator as a process: handlers, finalizers, status patches, events, timers, daemons, peering."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.harness.api import Api
from tests.harness.nanokube import CHECKOUT, Cluster, eventually

OPERATOR = Path(__file__).parent / "operator_under_test.py"


def definition(group: str, plural: str, kind: str, scope: str, schema: Any) -> dict[str, Any]:
    version = {
        "name": "v1",
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": schema},
        "subresources": {"status": {}} if kind == "Widget" else {},
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {
            "group": group,
            "scope": scope,
            "names": {"plural": plural, "singular": kind.lower(), "kind": kind, "listKind": f"{kind}List"},
            "versions": [version],
        },
    }


LOOSE = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
WIDGET = {
    "type": "object",
    "properties": {
        "spec": {"type": "object", "properties": {"size": {"type": "integer", "minimum": 0}}},
        "status": LOOSE,
    },
}


@pytest.fixture(scope="module")
def definitions(api: Api) -> Iterator[None]:
    kind = api.of("apiextensions.k8s.io/v1", "customresourcedefinitions")
    made = [
        definition("example.com", "widgets", "Widget", "Namespaced", WIDGET),
        definition("kopf.dev", "kopfpeerings", "KopfPeering", "Namespaced", LOOSE),
    ]
    for each in made:
        kind.create(each)
        name = each["metadata"]["name"]
        eventually(
            lambda name=name: any(  # type: ignore[misc]
                found["type"] == "Established" and found["status"] == "True"
                for found in kind.get(name).get("status", {}).get("conditions", ())
            ),
            f"{name} established",
        )
    yield
    for each in made:
        kind.delete(each["metadata"]["name"])


class Operator:
    """`kopf run` for one namespace."""

    def __init__(self, cluster: Cluster, namespace: str, log: Path, priority: int = 10) -> None:
        self.log = log
        argv = [
            sys.executable, "-m", "kopf", "run", str(OPERATOR), "--namespace", namespace,
            "--peering=tests", f"--priority={priority}", "--verbose",
        ]  # fmt: skip
        environment = {**cluster.environment, "PYTHONPATH": str(CHECKOUT)}
        with log.open("wb") as output:
            self.process = subprocess.Popen(argv, env=environment, stdout=output, stderr=output)

    def stop(self) -> int:
        self.process.terminate()
        try:
            return self.process.wait(15)
        finally:
            self.process.kill()
            self.process.wait()


@pytest.fixture
def operator(cluster: Cluster, api: Api, namespace: str, definitions: None, tmp_path: Path) -> Iterator[Operator]:
    peering = {"apiVersion": "kopf.dev/v1", "kind": "KopfPeering", "metadata": {"name": "tests"}}
    api.of("kopf.dev/v1", "kopfpeerings", namespace).create(peering)
    made = Operator(cluster, namespace, tmp_path / "operator.log")
    yield made
    made.stop()
    widgets = api.of("example.com/v1", "widgets", namespace)
    for name in widgets.names():
        widgets.patch(name, {"metadata": {"finalizers": None}})


def test_an_operators_life(api: Api, namespace: str, operator: Operator) -> None:
    widgets, maps = api.of("example.com/v1", "widgets", namespace), api.of("v1", "configmaps", namespace)
    peering = api.of("kopf.dev/v1", "kopfpeerings", namespace)
    eventually(lambda: peering.get("tests").get("status"), "the operator among its peers")

    def status() -> Any:
        return widgets.get("w").get("status", {})

    widget = {"metadata": {"name": "w", "labels": {"flaky": "yes"}}, "spec": {"size": 1}}
    widgets.create({"apiVersion": "example.com/v1", "kind": "Widget", **widget})
    eventually(lambda: status().get("phase") == "Made", operator.log.read_text())
    assert status()["created"] == {"config_map": "w-made"}
    made = maps.get("w-made")
    assert made["data"] == {"size": "1"} and made["metadata"]["ownerReferences"][0]["kind"] == "Widget"
    assert widgets.get("w")["metadata"]["finalizers"] == ["example.com/kopf"]
    eventually(lambda: status().get("retries") == 2, "the handler that fails twice")
    eventually(lambda: maps.exists("w-watched"), "the daemon")
    eventually(lambda: status().get("ticks") == 3, "the timer")
    events = api.of("v1", "events", namespace)
    eventually(lambda: "Made" in {each["reason"] for each in events.list()}, "the operator's event")

    widgets.patch("w", {"spec": {"size": 2}})
    eventually(lambda: status().get("resized") == "1 to 2", "the update")
    assert maps.get("w-made")["data"] == {"size": "2"}

    widgets.delete("w")
    eventually(lambda: not widgets.exists("w"), "the finalizer's removal")
    assert maps.exists("w-obituary")
    eventually(lambda: not maps.exists("w-made"), "the owned ConfigMap to be collected")
    assert operator.stop() == 0, operator.log.read_text()
    eventually(lambda: not peering.get("tests").get("status"), "the operator to take leave of its peers")


def test_what_happened_while_it_was_away_is_made_up_for(
    cluster: Cluster, api: Api, namespace: str, operator: Operator, tmp_path: Path
) -> None:
    widgets, maps = api.of("example.com/v1", "widgets", namespace), api.of("v1", "configmaps", namespace)
    widgets.create({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "w"}, "spec": {"size": 1}})
    eventually(lambda: widgets.get("w").get("status", {}).get("phase") == "Made", "the first run")
    operator.process.kill()
    operator.process.wait()
    widgets.patch("w", {"spec": {"size": 5}})
    widgets.delete("w")
    assert widgets.get("w")["metadata"]["deletionTimestamp"]
    # its peers wait for the one that was killed as long as its record is fresh, unless they matter more
    another = Operator(cluster, namespace, tmp_path / "another.log", priority=20)
    try:
        eventually(lambda: not widgets.exists("w"), "the next run to let it go")
        assert maps.exists("w-obituary")
    finally:
        another.stop()
