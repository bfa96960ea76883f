"""Files of configMap, secret, downwardAPI and projected volumes."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from api.models import core_v1
from kubelet.downward import PodFacts
from kubelet.volumes.payload import File, Given, VolumeError, payload, wants

GIVEN = Given(
    config_maps={"cm": core_v1.ConfigMap(data={"a": "1", "b": "2"}, binaryData={"c": "Aw=="}), "gone": None},
    secrets={"sec": core_v1.Secret(data={"pw": "c2VjcmV0"}), "gone": None},
    tokens={("", 3607): "token"},
    facts=PodFacts(("10.0.0.2",)),
)
POD = msgspec.convert(
    {"metadata": {"name": "web", "namespace": "ns", "labels": {"b": "2", "a": 'q"'}}, "spec": {"containers": []}},
    core_v1.Pod,
)


def volume(**source: Any) -> core_v1.Volume:
    return msgspec.convert({"name": "v", **source}, core_v1.Volume)


TOKEN = {"serviceAccountToken": {"path": "token", "expirationSeconds": 3607}}


@pytest.mark.parametrize(
    ("wish", "expected"),
    [
        pytest.param(
            volume(configMap={"name": "cm"}), {"a": File(b"1"), "b": File(b"2"), "c": File(b"\x03")}, id="map"
        ),
        pytest.param(
            volume(configMap={"name": "cm", "items": [{"key": "a", "path": "x/y", "mode": 256}]}),
            {"x/y": File(b"1", 256)},
            id="items",
        ),
        pytest.param(
            volume(secret={"secretName": "sec", "defaultMode": 384}), {"pw": File(b"secret", 384)}, id="secret"
        ),
        pytest.param(volume(configMap={"name": "gone", "optional": True}), {}, id="optional"),
        pytest.param(
            volume(downwardAPI={"items": [{"path": "l", "fieldRef": {"fieldPath": "metadata.labels"}}]}),
            {"l": File(b'a="q\\""\nb="2"')},
            id="downward",
        ),
        pytest.param(
            volume(projected={"sources": [TOKEN, {"secret": {"name": "sec"}}]}),
            {"token": File(b"token"), "pw": File(b"secret")},
            id="projected",
        ),
        pytest.param(volume(emptyDir={}), None, id="not-made-of-files"),
    ],
)
def test_payload(wish: core_v1.Volume, expected: object) -> None:
    assert payload(POD, wish, GIVEN) == expected


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        pytest.param(volume(configMap={"name": "gone"}), 'configmap "gone" not found', id="map"),
        pytest.param(volume(secret={"secretName": "gone"}), 'secret "gone" not found', id="secret"),
        pytest.param(
            volume(configMap={"name": "cm", "items": [{"key": "z", "path": "z"}]}),
            "references non-existent config key: z",
            id="key",
        ),
        pytest.param(
            volume(configMap={"name": "cm", "items": [{"key": "a", "path": "../z"}]}),
            "invalid path: '../z'",
            id="escape",
        ),
    ],
)
def test_what_cannot_be_made(wish: core_v1.Volume, message: str) -> None:
    with pytest.raises(VolumeError, match=message):
        payload(POD, wish, GIVEN)


def test_wants_names_everything_that_must_be_read() -> None:
    found = wants([volume(configMap={"name": "cm"}), volume(projected={"sources": [TOKEN, {"secret": {"name": "s"}}]})])
    assert (found.config_maps, found.secrets, found.tokens) == ({"cm"}, {"s"}, {("", 3607)})
