"""Which address a load balancer is given."""

from __future__ import annotations

import ipaddress

import pytest

from cloud.balancers import NoAddress, choose_address

NETWORK = ipaddress.IPv4Network("10.251.0.0/30")


@pytest.mark.parametrize(
    ("taken", "wanted", "chosen"),
    [
        pytest.param((), "", "10.251.0.1", id="the first"),
        pytest.param(("10.251.0.1",), "", "10.251.0.2", id="the next"),
        pytest.param(("10.251.0.1",), "10.251.0.2", "10.251.0.2", id="as wanted"),
    ],
)
def test_addresses(taken: tuple[str, ...], wanted: str, chosen: str) -> None:
    assert choose_address(NETWORK, taken, wanted) == chosen


@pytest.mark.parametrize(
    ("taken", "wanted", "words"),
    [
        pytest.param(("10.251.0.1", "10.251.0.2"), "", "no address", id="all taken"),
        pytest.param((), "10.9.9.9", "not of the range", id="elsewhere"),
        pytest.param(("10.251.0.2",), "10.251.0.2", "in use", id="another's"),
        pytest.param((), "fd00::1", "invalid", id="other family"),
        pytest.param((), "x", "invalid", id="no address"),
    ],
)
def test_no_address(taken: tuple[str, ...], wanted: str, words: str) -> None:
    with pytest.raises(NoAddress, match=words):
        choose_address(NETWORK, taken, wanted)
