"""What all suites share: only one run at a time may bring up clusters, because their names and networks are fixed."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator

import pytest

from tests.harness.nanokube import STATE

PATIENCE = 900.0


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
