from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodepool_autoscaler.disruption.drift import (
    drift_reason,
    hash_annotations,
    is_static_drift,
    template_hash,
)
from nodepool_autoscaler.names import POOL_HASH as HASH
from nodepool_autoscaler.names import POOL_HASH_VERSION as HASH_VERSION

TEMPLATE: dict[str, Any] = {
    "metadata": {"labels": {"team": "a"}},
    "spec": {
        "requirements": [{"key": "karpenter.sh/capacity-type", "operator": "In", "values": ["spot"]}],
        "taints": [{"key": "a", "effect": "NoSchedule"}, {"key": "b", "effect": "NoSchedule"}],
        "expireAfter": "720h",
    },
}


OWN = hash_annotations(template_hash(TEMPLATE))


def changed(**spec: Any) -> dict[str, Any]:
    return {**TEMPLATE, "spec": {**TEMPLATE["spec"], **spec}}


@pytest.mark.parametrize(
    ("other", "same"),
    [
        pytest.param(changed(requirements=[]), True, id="requirements-are-compared-elsewhere"),
        pytest.param(changed(taints=TEMPLATE["spec"]["taints"][::-1]), True, id="order-of-taints"),
        pytest.param(changed(startupTaints=[]), True, id="empty-is-absent"),
        pytest.param(changed(expireAfter="1h"), False, id="expire-after"),
        pytest.param(changed(taints=[]), False, id="taints"),
        pytest.param(changed(terminationGracePeriod="1h"), False, id="grace"),
        pytest.param({**TEMPLATE, "metadata": {"labels": {"team": "b"}}}, False, id="labels"),
        pytest.param({**TEMPLATE, "metadata": {"labels": {"team": "a"}, "annotations": {"x": "y"}}}, False, id="notes"),
    ],
)
def test_what_changes_the_hash(other: dict[str, Any], same: bool) -> None:
    assert (template_hash(other) == template_hash(TEMPLATE)) is same


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)
    )
)
def test_any_template_has_a_hash(value: Any) -> None:
    assert 0 <= int(template_hash({"spec": {"nodeClassRef": value}})) < 2**64


@pytest.mark.parametrize(
    ("pool", "claim", "drifted"),
    [
        pytest.param(OWN, OWN, False, id="same"),
        pytest.param(
            OWN,
            hash_annotations(template_hash(changed(taints=[]))),
            True,
            id="other",
        ),
        pytest.param(OWN, {}, False, id="claim-has-none"),
        pytest.param({}, OWN, False, id="pool-has-none"),
        pytest.param(OWN, {HASH: "1", HASH_VERSION: "v2"}, False, id="older-way"),
    ],
)
def test_static_drift(pool: dict[str, str], claim: dict[str, str], drifted: bool) -> None:
    assert is_static_drift(pool, claim) is drifted


SAME = {"static": False, "meets_requirements": True, "offered": True, "same_class": True}


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({}, ""),
        ({"static": True, "meets_requirements": False}, "NodePoolDrifted"),
        ({"meets_requirements": False, "offered": False}, "RequirementsDrifted"),
        ({"offered": False, "same_class": False}, "InstanceTypeNotFound"),
        ({"same_class": False}, "NodeClassDrift"),
    ],
)
def test_the_first_reason_counts(changed: dict[str, bool], reason: str) -> None:
    assert drift_reason(**{**SAME, **changed}) == reason
