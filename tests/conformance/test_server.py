"""sig-api-machinery and sig-architecture: what a server says of itself and of its nodes."""

from __future__ import annotations

import re

import pytest

from tests.harness.api import Api


@pytest.mark.conformance("[sig-api-machinery] server version should find the server version [Conformance]")
def test_version(api: Api) -> None:
    found = api.call("GET", "/version")
    assert re.fullmatch(r"[1-9]\d*", found["major"]) and re.fullmatch(r"\d+", found["minor"])
    assert found["gitVersion"].startswith(f"v{found['major']}.{found['minor']}.")


@pytest.mark.conformance("[sig-architecture] Conformance Tests should have at least two untainted nodes [Conformance]")
def test_untainted_nodes(api: Api) -> None:
    nodes = api.of("v1", "nodes").list()
    effects = ("NoSchedule", "NoExecute")
    free = [each for each in nodes if not any(t["effect"] in effects for t in each["spec"].get("taints", ()))]
    assert len(free) >= 2
