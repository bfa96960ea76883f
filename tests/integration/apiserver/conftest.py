"""A ready API server on the memory store for every test that asks for `apiserver`."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.harness.apiserver import RunningApiServer, running_apiserver


@pytest.fixture
async def apiserver() -> AsyncIterator[RunningApiServer]:
    async with running_apiserver() as server:
        yield server
