"""Real clusters for end-to-end tests: one for the whole run at scale 1, one with fast timers for healing."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.nanokube import Cluster

TOOLS = Path(os.environ.get("NANOKUBE_STATE") or "/var/lib/nanokube") / "tools"


def _state(name: str) -> Path:
    # Overlay mounts want a real file system, which a temporary folder need not be on.
    folder = TOOLS.parent / f"e2e-{name}"
    folder.mkdir(parents=True, exist_ok=True)
    if TOOLS.exists() and not (folder / "tools").exists():
        (folder / "tools").symlink_to(TOOLS)
    return folder


def _cluster(name: str, *arguments: str) -> Iterator[Cluster]:
    state = _state(name)
    made = Cluster(name, state)
    made.nanokube("down")
    try:
        made.nanokube("up", *arguments)
        yield made
    finally:
        made.nanokube("down")
        shutil.rmtree(state, ignore_errors=True)


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """Three workers, default time."""
    yield from _cluster("e2e", "--workers", "3")


@pytest.fixture(scope="module")
def fast() -> Iterator[Cluster]:
    """Three workers, timers twenty times as fast: a dead node is replaced within seconds."""
    yield from _cluster("e2e-fast", "--workers", "3", "--time-scale", "20")


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[str]:
    """A namespace of its own for each test."""
    name = f"t-{uuid.uuid4().hex[:8]}"
    cluster.kubectl("create", "namespace", name)
    yield name
    cluster.kubectl("delete", "namespace", name, "--wait=false")
