"""ComponentStatuses: the deprecated list of what components say of themselves."""

from __future__ import annotations

from pathlib import Path

from apiserver.registry.component_status import ComponentStatuses
from machinery.health import HealthServer
from tests.harness.apiserver import running_apiserver

PATH = "/api/v1/componentstatuses"


async def test_components_are_asked(tmp_path: Path) -> None:
    alive, dead = tmp_path / "scheduler.health", tmp_path / "controller-manager.health"
    health = HealthServer(f"unix:{alive}")
    await health.start()
    try:
        async with running_apiserver() as server:
            store = server.server.registry.resource("", "v1", "componentstatuses")
            assert isinstance(store, ComponentStatuses)
            store.components = {"scheduler": str(alive), "controller-manager": str(dead)}
            listed = await server.rest().get(PATH)
            assert "v1 ComponentStatus is deprecated in v1.19+" in listed.header("warning")
            found = {item["metadata"]["name"]: item["conditions"][0] for item in listed.json["items"]}
            assert list(found) == ["controller-manager", "etcd-0", "scheduler"]
            assert found["scheduler"] == found["etcd-0"] == {"type": "Healthy", "status": "True", "message": "ok"}
            assert found["controller-manager"]["status"] == "False"
            assert "connect: no such file or directory" in found["controller-manager"]["message"]
            assert (await server.rest().get(f"{PATH}/scheduler")).json["conditions"][0]["status"] == "True"
            assert (await server.rest().get(f"{PATH}/kubelet")).status == 404
            table = await server.rest().get(PATH, accept="application/json;as=Table;v=v1;g=meta.k8s.io")
            assert [row["cells"][:2] for row in table.json["rows"]] == [
                ["controller-manager", "Unhealthy"],
                ["etcd-0", "Healthy"],
                ["scheduler", "Healthy"],
            ]
    finally:
        await health.close()
