"""A real cluster with fast timers for healing; the one at scale 1 is shared by all suites (`tests/conftest.py`)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.harness.nanokube import Cluster, brought_up


@pytest.fixture(scope="module")
def fast(machine: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three workers, timers twenty times as fast: a dead node is replaced within seconds."""
    made = Cluster("e2e-fast", tmp_path_factory.mktemp("home"))
    yield from brought_up(made, "--workers", "3", "--time-scale", "20")
