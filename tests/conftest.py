"""What all suites share: one run at a time brings up clusters, whose names and networks are fixed; Hypothesis' profile.

Properties are explored anew in every run by hand; CI (the variable CI) runs the same examples every time, so that a red
run there tells of the change. How fast a loaded machine draws examples is no finding.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests.conformance import plugin as conformance
from tests.harness.nanokube import STATE

PATIENCE = 900.0
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
