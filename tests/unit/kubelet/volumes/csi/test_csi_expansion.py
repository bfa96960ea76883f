"""When a claim is behind its volume, and what is written when it has caught up."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from api.volumes import Claim, Volume
from kubelet.volumes.csi.expansion import finished, is_behind


def claim(size: str | None, *conditions: str, **status: Any) -> Claim:
    listed = [{"type": kind, "status": "True"} for kind in conditions]
    told = {"capacity": {"storage": size}} if size else {}
    return msgspec.convert({"status": {**told, "conditions": listed, **status}}, Claim)


def volume(size: str) -> Volume:
    return msgspec.convert({"spec": {"capacity": {"storage": size}}}, Volume)


@pytest.mark.parametrize(
    ("told", "real", "behind"),
    [
        ("1Gi", "2Gi", True),
        ("1Gi", "1Gi", False),
        ("2Gi", "1Gi", False),
        ("1024Mi", "1Gi", False),
        (None, "1Gi", False),
    ],
)
def test_behind(told: str | None, real: str, behind: bool) -> None:
    assert is_behind(claim(told), volume(real)) is behind


def test_what_is_done_is_no_longer_said_and_the_rest_stays() -> None:
    found = claim("1Gi", "FileSystemResizePending", "Resizing", "ModifyingVolume")
    assert finished(found, volume("2Gi")) == {
        "capacity": {"storage": "2Gi"},
        "conditions": [{"type": "ModifyingVolume", "status": "True"}],
        "allocatedResourceStatuses": None,
    }
    assert finished(claim("1Gi"), volume("2Gi"))["conditions"] is None
