"""Real clusters for end-to-end tests: one for the whole run at scale 1, one with fast timers for healing."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.nanokube import Cluster


def _cluster(name: str, home: Path, *arguments: str) -> Iterator[Cluster]:
    made = Cluster(name, home)
    made.nanokube("down")
    try:
        made.nanokube("up", *arguments)
        yield made
    finally:
        made.nanokube("down")


@pytest.fixture(scope="session")
def cluster(machine: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three workers, default time."""
    yield from _cluster("e2e", tmp_path_factory.mktemp("home"), "--workers", "3")


@pytest.fixture(scope="module")
def fast(machine: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three workers, timers twenty times as fast: a dead node is replaced within seconds."""
    yield from _cluster("e2e-fast", tmp_path_factory.mktemp("home"), "--workers", "3", "--time-scale", "20")


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[str]:
    """A namespace of its own for each test."""
    name = f"t-{uuid.uuid4().hex[:8]}"
    cluster.kubectl("create", "namespace", name)
    yield name
    cluster.kubectl("delete", "namespace", name, "--wait=false")
