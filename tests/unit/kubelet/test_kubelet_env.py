"""Environment of a container."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.models import core_v1
from kubelet.downward import PodFacts
from kubelet.env import EnvError, Sources, build, expand, service_variables


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("$(A)", "1", id="known"),
        pytest.param("x$(A)y$(B)", "x1y2", id="inside"),
        pytest.param("$(C)", "$(C)", id="unknown-stays"),
        pytest.param("$$(A)", "$(A)", id="escaped"),
        pytest.param("$$$(A)", "$1", id="escaped-dollar-then-reference"),
        pytest.param("$A ${A}", "$A ${A}", id="not-our-syntax"),
        pytest.param("$(A", "$(A", id="unfinished"),
    ],
)
def test_expansion(text: str, expected: str) -> None:
    assert expand(text, {"A": "1", "B": "2"}) == expected


@given(st.text(alphabet="ab()", max_size=20))
def test_text_without_dollars_stays(text: str) -> None:
    assert expand(text, {"a": "1"}) == text


def make(container: dict[str, Any], **meta: Any) -> tuple[core_v1.Pod, core_v1.Container]:
    raw = {
        "metadata": {"name": "web", "namespace": "default", "uid": "u", "labels": {"app": "web"}, **meta},
        "spec": {"containers": [{"name": "main", **container}]},
    }
    pod = msgspec.convert(raw, core_v1.Pod)
    assert pod.spec is not None
    return pod, pod.spec.containers[0]


SOURCES = Sources(
    config_maps={"cm": core_v1.ConfigMap(data={"a": "1", "b": "2"}), "gone": None},
    secrets={"sec": core_v1.Secret(data={"pw": "c2VjcmV0"}), "gone": None},
)
FACTS = PodFacts(("10.0.0.2",), ("10.9.9.9",), node_cpu_milli=2000, node_memory=2 << 30)


def env(container: dict[str, Any]) -> dict[str, str]:
    return build(*make(container), SOURCES, FACTS, {"SVC": "s"})


@pytest.mark.parametrize("prefix", ["1-", "#", "p-", "$_-"])
def test_names_are_any_printable_text(prefix: str) -> None:
    result = env({"envFrom": [{"configMapRef": {"name": "cm"}, "prefix": prefix}]})
    assert result == {"SVC": "s", f"{prefix}a": "1", f"{prefix}b": "2"}


def test_precedence_and_references_to_earlier_variables() -> None:
    result = env(
        {
            "envFrom": [{"configMapRef": {"name": "cm"}, "prefix": "P_"}, {"secretRef": {"name": "sec"}}],
            "env": [
                {"name": "pw", "value": "own"},
                {"name": "X", "value": "$(P_a)-$(pw)-$(SVC)-$(LATER)"},
                {"name": "LATER", "value": "z"},
            ],
        }
    )
    assert result == {"SVC": "s", "P_a": "1", "P_b": "2", "pw": "own", "X": "1-own-s-$(LATER)", "LATER": "z"}


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        pytest.param({"fieldRef": {"fieldPath": "metadata.name"}}, "web", id="name"),
        pytest.param({"fieldRef": {"fieldPath": "metadata.labels['app']"}}, "web", id="label"),
        pytest.param({"fieldRef": {"fieldPath": "status.podIP"}}, "10.0.0.2", id="pod-ip"),
        pytest.param({"fieldRef": {"fieldPath": "status.hostIP"}}, "10.9.9.9", id="host-ip"),
        pytest.param({"resourceFieldRef": {"resource": "limits.cpu"}}, "1", id="cpu-rounds-up"),
        pytest.param({"resourceFieldRef": {"resource": "limits.cpu", "divisor": "1m"}}, "250", id="cpu-in-milli"),
        pytest.param({"resourceFieldRef": {"resource": "limits.memory"}}, str(2 << 30), id="memory-of-the-node"),
        pytest.param({"resourceFieldRef": {"resource": "requests.memory", "divisor": "1Mi"}}, "64", id="memory-in-mi"),
        pytest.param({"configMapKeyRef": {"name": "cm", "key": "b"}}, "2", id="config-map"),
        pytest.param({"secretKeyRef": {"name": "sec", "key": "pw"}}, "secret", id="secret"),
    ],
)
def test_sources_of_values(source: dict[str, Any], expected: str) -> None:
    resources = {"limits": {"cpu": "250m"}, "requests": {"memory": "64Mi"}}
    assert env({"env": [{"name": "A", "valueFrom": source}], "resources": resources})["A"] == expected


@pytest.mark.parametrize(
    ("source", "message"),
    [
        pytest.param({"configMapKeyRef": {"name": "gone", "key": "a"}}, 'configmap "gone" not found', id="map"),
        pytest.param({"secretKeyRef": {"name": "gone", "key": "a"}}, 'secret "gone" not found', id="secret"),
        pytest.param(
            {"configMapKeyRef": {"name": "cm", "key": "z"}},
            "couldn't find key z in ConfigMap default/cm",
            id="key-of-map",
        ),
        pytest.param(
            {"secretKeyRef": {"name": "sec", "key": "z"}},
            "couldn't find key z in Secret default/sec",
            id="key-of-secret",
        ),
    ],
)
def test_missing_sources_are_errors_unless_optional(source: dict[str, Any], message: str) -> None:
    with pytest.raises(EnvError) as caught:
        env({"env": [{"name": "A", "valueFrom": source}]})
    assert str(caught.value) == message
    (kind, reference), *_ = source.items()
    assert "A" not in env({"env": [{"name": "A", "valueFrom": {kind: {**reference, "optional": True}}}]})


def test_service_variables() -> None:
    raw = [
        {
            "metadata": {"name": "my-db", "namespace": "default"},
            "spec": {"clusterIP": "10.96.0.7", "ports": [{"name": "sql", "port": 5432, "protocol": "TCP"}]},
        },
        {"metadata": {"name": "headless", "namespace": "default"}, "spec": {"clusterIP": "None"}},
        {"metadata": {"name": "other", "namespace": "elsewhere"}, "spec": {"clusterIP": "10.96.0.9"}},
    ]
    services = msgspec.convert(raw, list[core_v1.Service])
    assert service_variables(services, "default", links=True) == {
        "MY_DB_SERVICE_HOST": "10.96.0.7",
        "MY_DB_SERVICE_PORT": "5432",
        "MY_DB_SERVICE_PORT_SQL": "5432",
        "MY_DB_PORT": "tcp://10.96.0.7:5432",
        "MY_DB_PORT_5432_TCP": "tcp://10.96.0.7:5432",
        "MY_DB_PORT_5432_TCP_PROTO": "tcp",
        "MY_DB_PORT_5432_TCP_PORT": "5432",
        "MY_DB_PORT_5432_TCP_ADDR": "10.96.0.7",
    }
    assert service_variables(services, "default", links=False) == {}
