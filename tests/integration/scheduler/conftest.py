"""The cluster of the scheduler's integration tests."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.harness.apiserver import running_apiserver
from tests.integration.scheduler.cluster import Cluster, ensure_namespace


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    async with running_apiserver() as server:
        made = Cluster(server)
        await ensure_namespace(made)
        yield made
        await made.client.close()
