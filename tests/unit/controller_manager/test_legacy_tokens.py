"""Which lasting tokens are done with."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from api.models import core_v1, meta_v1
from controller_manager.tokens.legacy import INVALID_SINCE, LAST_USED, Step, mounted_secrets, plan_step
from machinery.meta import ObjectKey

NOW = datetime(2026, 6, 15, 12, tzinfo=UTC)
OLD, RECENT = "2025-06-14", "2025-06-15"


def account(*names: str) -> core_v1.ServiceAccount:
    secrets = [core_v1.ObjectReference(name=name) for name in names]
    return core_v1.ServiceAccount(metadata=meta_v1.ObjectMeta(name="sa", namespace="ns", uid="u"), secrets=secrets)


def secret(
    labels: dict[str, str] | None = None, days: float = 400, type_: str = "kubernetes.io/service-account-token"
) -> core_v1.Secret:
    meta = meta_v1.ObjectMeta(
        name="token",
        namespace="ns",
        labels=labels,
        annotations={"kubernetes.io/service-account.name": "sa", "kubernetes.io/service-account.uid": "u"},
        creationTimestamp=NOW - timedelta(days=days),
    )
    return core_v1.Secret(metadata=meta, type=type_)


def going() -> core_v1.Secret:
    made = secret()
    assert made.metadata is not None
    made.metadata.deletionTimestamp = NOW
    return made


@pytest.mark.parametrize(
    ("given", "step"),
    [
        pytest.param(secret(), Step.INVALIDATE, id="never used"),
        pytest.param(secret(days=365), Step.KEEP, id="young"),
        pytest.param(secret(type_="Opaque"), Step.KEEP, id="no token"),
        pytest.param(going(), Step.KEEP, id="going already"),
        pytest.param(secret({LAST_USED: RECENT}), Step.KEEP, id="used within the year"),
        pytest.param(secret({LAST_USED: OLD}), Step.INVALIDATE, id="used before"),
        pytest.param(secret({LAST_USED: "soon"}), Step.KEEP, id="used nobody knows when"),
        pytest.param(secret({INVALID_SINCE: "soon"}), Step.INVALIDATE, id="invalid since nobody knows when"),
        pytest.param(secret({INVALID_SINCE: RECENT}), Step.KEEP, id="invalid for less than a year"),
        pytest.param(secret({INVALID_SINCE: OLD}), Step.DELETE, id="invalid for long"),
        pytest.param(secret({INVALID_SINCE: OLD, LAST_USED: RECENT}), Step.KEEP, id="invalid, but tried since"),
    ],
)
def test_steps(given: core_v1.Secret, step: Step) -> None:
    assert plan_step(given, account("token"), NOW, mounted=False) is step


@pytest.mark.parametrize(
    ("owner", "mounted"),
    [
        pytest.param(None, False, id="no account"),
        pytest.param(account(), False, id="made by hand"),
        pytest.param(account("other"), False, id="not named by the account"),
        pytest.param(account("token"), True, id="mounted"),
    ],
)
def test_what_others_may_need_is_kept(owner: core_v1.ServiceAccount | None, *, mounted: bool) -> None:
    assert plan_step(secret({INVALID_SINCE: OLD}), owner, NOW, mounted=mounted) is Step.KEEP


@pytest.mark.parametrize(
    "spec",
    [
        {"volumes": [{"name": "v", "secret": {"secretName": "token"}}]},
        {"volumes": [{"name": "v", "projected": {"sources": [{"secret": {"name": "token"}}]}}]},
        {"imagePullSecrets": [{"name": "token"}]},
        {"containers": [{"name": "c", "envFrom": [{"secretRef": {"name": "token"}}]}]},
        {
            "initContainers": [
                {"name": "c", "env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "token", "key": "token"}}}]}
            ]
        },
    ],
)
def test_where_pods_name_secrets(spec: dict[str, Any]) -> None:
    whole = {"metadata": {"name": "p", "namespace": "ns"}, "spec": {"containers": [], **spec}}
    pod = msgspec.convert(whole, core_v1.Pod)
    assert mounted_secrets([pod]) == {ObjectKey("ns", "token")}
