"""The cloud of a cluster: machines that come and go as groups want, heal and are interrupted; addresses of Services."""

from __future__ import annotations

import http.client
import json
import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.test_session import HTTPD
from tests.harness.nanokube import Cluster, brought_up, eventually


@pytest.fixture(scope="module")
def cloudy(machine: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One worker, time ten times as fast."""
    made = Cluster("e2e-cloud", tmp_path_factory.mktemp("home"))
    yield from brought_up(made, "--workers", "1", "--time-scale", "10")


def instances(cluster: Cluster, *arguments: str) -> dict[str, dict[str, Any]]:
    found = json.loads(cluster.nanokube("cloud", "instances", *arguments, "-o", "json"))["instances"]
    return {each["name"]: each for each in found}


def test_groups_of_both_kinds_grow_heal_and_go(cloudy: Cluster) -> None:
    groups = json.loads(cloudy.nanokube("cloud", "groups", "-o", "json"))["groups"]
    assert [(each["name"], each["min"], each["max"], each["desired"]) for each in groups] == [("workers", 1, 5, 1)]

    cloudy.nanokube("cloud", "resize", "workers", "2", "--heal-after", "20")
    eventually(lambda: "worker-2" in cloudy.ready_nodes(), "the new machine's node")
    node = cloudy.get("node", "worker-2")
    assert node["spec"]["providerID"] == "nanokube://e2e-cloud/worker-2"
    assert node["metadata"]["labels"]["nanokube.io/node-group"] == "workers"
    assert node["status"]["capacity"]["cpu"] == "2"

    cloudy.nanokube("cloud", "create-group", "sim", "--hollow", "--type", "standard-4x8", "--desired", "2")
    eventually(lambda: {"sim-1", "sim-2"} <= cloudy.ready_nodes(), "hollow machines")
    cloudy.nanokube("hollow", "0")  # is about those that nobody but the command line made
    assert {"sim-1", "sim-2"} <= cloudy.ready_nodes()

    cloudy.nanokube("node", "freeze", "worker-2")
    eventually(lambda: "worker-3" in cloudy.ready_nodes(), "a replacement of the frozen machine")
    eventually(lambda: "worker-2" not in cloudy.ready_nodes(), "the end of the frozen one")
    assert instances(cloudy, "--gone")["worker-2"]["message"] == "unhealthy"

    cloudy.nanokube("cloud", "delete-group", "sim")
    eventually(lambda: not any(name.startswith("sim") for name in cloudy.ready_nodes()), "the end of a group")
    assert json.loads(cloudy.nanokube("cloud", "cost", "-o", "json"))["total"]["total"] > 0

    cloudy.nanokube("cloud", "interrupt", "worker-3", "--notice", "60")
    eventually(lambda: "worker-4" in cloudy.ready_nodes(), "the replacement of an interrupted machine")
    eventually(lambda: "worker-3" not in instances(cloudy), "the end of the interrupted one")
    reasons = {each["reason"] for each in cloudy.items("events", "--field-selector=involvedObject.name=worker-3")}
    assert {"SpotInterruption", "DeletingNode"} <= reasons


def test_spot_machines_are_taken_away_at_random_after_a_notice(cloudy: Cluster) -> None:
    cloudy.nanokube("cloud", "create-group", "lent", "--spot", "--hollow", "--desired", "2", "--boot-delay", "0")
    eventually(lambda: {"lent-1", "lent-2"} <= cloudy.ready_nodes(), "spot machines")
    cloudy.nanokube("cloud", "spot-market", "--interruptions", "200", "--notice", "10")

    def interrupted() -> list[str]:
        gone = instances(cloudy, "lent", "--gone").values()
        return [each["name"] for each in gone if (each["state"], each["message"]) == ("gone", "interrupted")]

    name = eventually(interrupted, "an interruption")[0]
    cloudy.nanokube("cloud", "spot-market", "--interruptions", "0")
    eventually(lambda: name not in cloudy.ready_nodes(), "the end of its node")
    eventually(lambda: len(instances(cloudy, "lent")) == 2, "its replacement")
    events = cloudy.items("events", f"--field-selector=involvedObject.name={name}")
    assert "SpotInterruption" in {each["reason"] for each in events}
    cloudy.nanokube("cloud", "delete-group", "lent")


def test_the_cloud_picks_up_where_it_was_killed(cloudy: Cluster) -> None:
    before = instances(cloudy)
    pid = cloudy.pid("cloud")
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: cloudy.pid("cloud") not in (0, pid), "a new process")
    eventually(lambda: instances(cloudy).keys() == before.keys() and cloudy.ready_nodes(), "the same machines")


def test_a_service_is_reached_from_the_host_by_its_own_address(cloudy: Cluster) -> None:
    cloudy.kubectl("create", "deployment", "web", *HTTPD)
    cloudy.kubectl("expose", "deployment", "web", "--type=LoadBalancer", "--port=80", "--target-port=8080")

    def address() -> str:
        ingress = cloudy.get("service", "web")["status"]["loadBalancer"].get("ingress") or [{}]
        return str(ingress[0].get("ip", ""))

    found = eventually(address, "an address")

    def reach() -> str:
        connection = http.client.HTTPConnection(found, timeout=2)
        try:
            connection.request("GET", "/")
            return connection.getresponse().read().decode()
        except OSError:
            return ""
        finally:
            connection.close()

    assert eventually(reach, "an answer").startswith("web-")
    cloudy.kubectl("patch", "service", "web", "-p", '{"spec":{"loadBalancerSourceRanges":["192.0.2.0/24"]}}')
    eventually(lambda: not reach(), "strangers to be kept out")
    cloudy.kubectl("delete", "service", "web")
    assert "web" not in cloudy.nanokube("cloud", "load-balancers")
