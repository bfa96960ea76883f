"""What `up` installs: every object lies where its kind belongs, and the endpoint is where the process listens."""

from __future__ import annotations

from pathlib import Path

import pytest

from api.resources import by_kind
from cli import addons, pki, processes
from cli.layout import ClusterConfig, ClusterPaths


@pytest.mark.parametrize("only", [[], ["apiserver", "metrics-server"]])
def test_objects_lie_where_they_belong(only: list[str]) -> None:
    config = ClusterConfig(name="demo", index=3, only=only)
    for path, obj in addons.metrics_server(config, b"PEM"):
        group, _, version = obj["apiVersion"].rpartition("/")
        resource = by_kind(group, version, obj["kind"])
        assert resource is not None
        root = f"/apis/{group}/{version}" if group else f"/api/{version}"
        scope = f"/namespaces/{obj['metadata']['namespace']}" if resource.namespaced else ""
        assert path == f"{root}{scope}/{resource.plural}"


def test_the_endpoint_is_the_process() -> None:
    config = ClusterConfig(name="demo", index=3)
    objects = {obj["kind"]: obj for _, obj in addons.metrics_server(config, b"PEM")}
    slices, service = objects["EndpointSlice"], objects["APIService"]["spec"]["service"]
    address = f"{slices['endpoints'][0]['addresses'][0]}:{slices['ports'][0]['port']}"
    spec = processes.metrics_server(config, ClusterPaths(Path("/x")))
    assert f"--listen={address}" in spec.argv
    assert objects["Service"]["spec"]["ports"][0]["port"] == service["port"]


def test_without_machines_only_the_api_server_reaches_it() -> None:
    config = ClusterConfig(name="demo", index=3, only=["apiserver", "metrics-server"])
    objects = {obj["kind"]: obj for _, obj in addons.metrics_server(config, b"PEM")}
    assert "EndpointSlice" not in objects
    port = objects["APIService"]["spec"]["service"]["port"]
    assert f"--listen=127.0.0.1:{port}" in processes.metrics_server(config, ClusterPaths(Path("/x"))).argv


def test_certificates(tmp_path: Path) -> None:
    """The front proxy's authority is not that of the cluster, and survives a second `up`."""
    paths = ClusterPaths(tmp_path)
    paths.make()
    config = ClusterConfig(name="demo", index=3, only=["apiserver"])
    pki.ensure(config, paths)
    first = (paths.front_proxy / "client.crt").read_bytes()
    assert (paths.front_proxy / "ca.crt").read_bytes() != (paths.pki / "ca.crt").read_bytes()
    assert (paths.pki / "metrics-server.crt").exists()
    pki.ensure(config, paths)
    assert (paths.front_proxy / "client.crt").read_bytes() == first
