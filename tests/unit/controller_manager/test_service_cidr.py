"""Whether a range of cluster IPs may go."""

from __future__ import annotations

import pytest

from api.models import meta_v1, networking_v1
from controller_manager.service_cidr import is_orphaning


def made(name: str, *cidrs: str) -> networking_v1.ServiceCIDR:
    return networking_v1.ServiceCIDR(
        metadata=meta_v1.ObjectMeta(name=name), spec=networking_v1.ServiceCIDRSpec(cidrs=list(cidrs))
    )


@pytest.mark.parametrize(
    ("others", "addresses", "orphaning"),
    [
        pytest.param([], [], False, id="unused"),
        pytest.param([], ["10.0.0.1"], True, id="alone"),
        pytest.param([], ["10.9.0.1"], False, id="used-elsewhere"),
        pytest.param(["10.0.0.0/16"], ["10.0.0.1"], False, id="within-a-larger"),
        pytest.param(["10.0.0.0/24"], ["10.0.0.1"], False, id="the-same-again"),
        pytest.param(["10.0.0.0/28"], ["10.0.0.1"], False, id="a-part-holds-it"),
        pytest.param(["10.0.0.0/28"], ["10.0.0.1", "10.0.0.200"], True, id="a-part-does-not-hold-all"),
        pytest.param(["2001:db8::/64"], ["10.0.0.1"], True, id="of-another-family"),
        pytest.param([], ["2001:db8::1"], False, id="address-of-another-family"),
    ],
)
def test_who_is_orphaned(others: list[str], addresses: list[str], orphaning: bool) -> None:
    own = made("own", "10.0.0.0/24")
    ranges = [own, *(made(f"other-{number}", cidr) for number, cidr in enumerate(others))]
    assert is_orphaning(own, ranges, addresses) is orphaning
