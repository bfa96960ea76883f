"""What of a Secret can be given to a driver."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from api.models import core_v1
from kubelet.volumes.csi.secrets import secret_values
from kubelet.volumes.payload import VolumeError
from proto.csi.v1 import csi_pb2 as pb


class Reader:
    def __init__(self, data: bytes) -> None:
        self._data = base64.b64encode(data).decode()

    async def secrets(self, namespace: str, names: Sequence[str]) -> Mapping[str, core_v1.Secret]:
        return {name: core_v1.Secret(data={"key": self._data}) for name in names}


async def test_text_is_given() -> None:
    reader: Any = Reader("grüße".encode())
    found = await secret_values(reader, "NodeStageSecretRef", ("ns", "s"))
    assert pb.NodeStageVolumeRequest(secrets=found).secrets["key"] == "grüße"


async def test_what_is_no_text_is_told_and_harms_nobody() -> None:
    reader: Any = Reader(b"\xff\xfe")
    with pytest.raises(VolumeError, match="string field contains invalid UTF-8"):
        pb.NodeStageVolumeRequest(secrets=await secret_values(reader, "NodeStageSecretRef", ("ns", "s")))
