"""Image names and pull policies."""

from __future__ import annotations

import pytest

from api.models import core_v1
from kubelet.images import _NAME, policy_of, with_tag


@pytest.mark.parametrize(
    ("image", "tagged"),
    [
        pytest.param("busybox", "busybox:latest", id="bare"),
        pytest.param("busybox:1", "busybox:1", id="tag"),
        pytest.param("host:5000/a/b", "host:5000/a/b:latest", id="port-is-no-tag"),
        pytest.param("a@sha256:00", "a@sha256:00", id="digest"),
    ],
)
def test_tags(image: str, tagged: str) -> None:
    assert with_tag(image) == tagged


@pytest.mark.parametrize(
    ("image", "own", "expected"),
    [
        pytest.param("busybox", None, "Always", id="latest-by-default"),
        pytest.param("busybox:latest", None, "Always", id="latest"),
        pytest.param("busybox:1", None, "IfNotPresent", id="tag"),
        pytest.param("busybox", "Never", "Never", id="own"),
    ],
)
def test_policy(image: str, own: str | None, expected: str) -> None:
    assert policy_of(core_v1.Container(name="c", image=image, imagePullPolicy=own)) == expected


@pytest.mark.parametrize(
    "image", ["busybox", "a/b-c/d_e.f:v1.2", "host:5000/x:y", "Reg.Example/x", "a@sha256:" + "0" * 64]
)
def test_good_names(image: str) -> None:
    assert _NAME.match(image)


@pytest.mark.parametrize("image", ["", "UPPER", "a b", "a:b:c", "-a", "a/", "a@sha256:xyz", "a\n"])
def test_bad_names(image: str) -> None:
    assert not _NAME.match(image) or image.endswith("\n")
