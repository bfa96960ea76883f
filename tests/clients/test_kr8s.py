"""kr8s: objects, lists, watch, wait, logs, exec, port-forward, scale, custom kinds; asynchronous."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import kr8s
import pytest
from kr8s.asyncio.objects import ConfigMap, Deployment, Pod, new_class

Api = Any
# The client leaves sockets to the garbage collector, and 1.36 is newer than what it was tried with.
pytestmark = pytest.mark.filterwarnings(
    "ignore::ResourceWarning",
    "ignore::pytest.PytestUnraisableExceptionWarning",
    "ignore:Kubernetes version .* is not supported:UserWarning",
)


@pytest.fixture
async def api(kubeconfig: Path) -> AsyncIterator[Api]:
    yield await kr8s.asyncio.api(kubeconfig=str(kubeconfig))


def config_map(name: str, namespace: str, **data: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": namespace, "labels": {"made": "by-kr8s"}},
        "data": data,
    }


async def test_verbs_and_patches(api: Api, namespace: str) -> None:
    settings = await ConfigMap(config_map("settings", namespace, a="1"), api=api)
    await settings.create()
    assert await settings.exists()
    await settings.patch({"data": {"b": "2"}})
    assert settings.raw["data"] == {"a": "1", "b": "2"}
    await settings.patch([{"op": "remove", "path": "/data/a"}], type="json")
    assert settings.raw["data"] == {"b": "2"}
    await settings.label({"more": "labels"})
    await settings.annotate({"and": "annotations"})
    found = await ConfigMap.get("settings", namespace=namespace, api=api)
    assert found.labels["more"] == "labels" and found.annotations["and"] == "annotations"
    await settings.delete()
    with pytest.raises(kr8s.NotFoundError):
        await ConfigMap.get("settings", namespace=namespace, api=api, timeout=1)


async def test_lists_and_watches(api: Api, namespace: str) -> None:
    for number in range(3):
        await (await ConfigMap(config_map(f"many-{number}", namespace), api=api)).create()
    names = [each.name async for each in api.get("configmaps", namespace=namespace, label_selector={"made": "by-kr8s"})]
    assert sorted(names) == ["many-0", "many-1", "many-2"]
    seen = set()
    async for kind, each in api.watch("configmaps", namespace=namespace, label_selector={"made": "by-kr8s"}):
        seen.add((kind, each.name))
        if len(seen) == 3:
            break
    assert seen == {("ADDED", f"many-{number}") for number in range(3)}


async def test_a_deployment_scales_and_its_pods_are_waited_for(api: Api, namespace: str) -> None:
    labels = {"app": "web"}
    container = {"name": "main", "image": "busybox", "command": ["sh", "-c", "trap 'exit 0' TERM; sleep 3600 & wait"]}
    web = await Deployment(
        {
            "metadata": {"name": "web", "namespace": namespace},
            "spec": {
                "replicas": 1,
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
            },
        },
        api=api,
    )
    await web.create()
    await web.wait("condition=Available", timeout=60)
    await web.scale(2)
    assert web.replicas == 2
    pods = await web.pods()
    for pod in pods:
        await pod.wait("condition=Ready", timeout=60)
    await web.delete(propagation_policy="Foreground")
    await web.wait("delete", timeout=60)


async def test_logs_exec_and_port_forward(api: Api, talker: tuple[str, str]) -> None:
    namespace, name = talker
    pod = await Pod.get(name, namespace=namespace, api=api)
    assert await pod.ready()
    assert [line async for line in pod.logs()][:2] == ["one", "two"]
    done = await pod.exec(["sh", "-c", "echo out; echo err >&2; exit 4"], check=False)
    assert (done.stdout, done.stderr, done.returncode) == (b"out\n", b"err\n", 4)
    async with pod.portforward(remote_port=8080, local_port="auto") as port, httpx.AsyncClient() as web:
        for _ in range(2):
            assert (await web.get(f"http://127.0.0.1:{port}/")).text == "served\n"


async def test_any_kind_by_discovery(api: Api, namespace: str) -> None:
    lease_class = new_class("Lease", version="coordination.k8s.io/v1", namespaced=True, asyncio=True)
    lease = await lease_class(
        {"metadata": {"name": "turn", "namespace": namespace}, "spec": {"holderIdentity": "me"}}, api=api
    )
    await lease.create()
    assert [each.name async for each in api.get("leases.coordination.k8s.io", namespace=namespace)] == ["turn"]
    assert "pods" in {each["name"] for each in await api.api_resources()}
    assert (await api.version())["minor"] == "36"
    assert (await api.whoami()) != ""
