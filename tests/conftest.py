"""What all suites share: one run at a time brings up clusters, whose names and networks are fixed; Hypothesis' profile.

Properties are explored anew in every run by hand; CI (the variable CI) runs the same examples every time, so that a red
run there tells of the change. How fast a loaded machine draws examples is no finding.
"""

from __future__ import annotations

import fcntl
import os
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from cli.processes import COMPONENTS
from tests.conformance import plugin as conformance
from tests.harness.api import Api
from tests.harness.nanokube import STATE, Cluster, brought_up

PATIENCE = 900.0
ATTACH = "NANOKUBE_TEST_CLUSTER"  # name of a running cluster to test instead of one of our own; KUBECONFIG is its
STEADY = [each for each in COMPONENTS if each != "cluster-autoscaler"]
"""Of the shared cluster: pods that shall stay Pending for a while must not bring it another machine."""
settings.register_profile(
    "nanokube", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=bool(os.environ.get("CI"))
)
settings.load_profile("nanokube")


def pytest_addoption(parser: pytest.Parser) -> None:
    conformance.add_option(parser)


def pytest_configure(config: pytest.Config) -> None:
    conformance.register(config)


@pytest.fixture(scope="session")
def machine() -> Iterator[None]:
    """This machine, for ourselves."""
    STATE.mkdir(parents=True, exist_ok=True)
    with (STATE / "tests.lock").open("w") as lock:
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                assert time.monotonic() < deadline, "another test run holds this machine"
                time.sleep(0.2)
        yield


@pytest.fixture(scope="session")
def cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three workers, default time; one for the whole run."""
    if name := os.environ.get(ATTACH):
        yield Cluster(name, Path(os.environ["KUBECONFIG"]).parent)
        return
    request.getfixturevalue("machine")
    made = Cluster("e2e", tmp_path_factory.mktemp("home"))
    yield from brought_up(made, "--workers", "3", "--only", ",".join(STEADY))


@pytest.fixture(scope="session")
def api(cluster: Cluster) -> Api:
    """The cluster's REST door, as its administrator."""
    return Api(Path(cluster.environment["KUBECONFIG"]))


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[str]:
    """A namespace of its own for each test."""
    name = f"t-{uuid.uuid4().hex[:8]}"
    cluster.kubectl("create", "namespace", name)
    yield name
    cluster.kubectl("delete", "namespace", name, "--wait=false")
