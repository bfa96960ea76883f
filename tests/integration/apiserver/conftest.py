"""A ready API server on the memory store for every test that asks for `apiserver`."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.harness.apiserver import RunningApiServer, running_apiserver
from tests.integration.apiserver.stream_site import EchoKubelet, streaming_cluster


@pytest.fixture
async def apiserver() -> AsyncIterator[RunningApiServer]:
    async with running_apiserver() as server:
        yield server


@pytest.fixture
async def cluster() -> AsyncIterator[tuple[RunningApiServer, EchoKubelet]]:
    """A server with one pod, on a node whose kubelet is the test's."""
    async with streaming_cluster() as made:
        yield made
