"""What `up` installs: every object lies where its kind belongs, and the endpoint is where the process listens."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from api.resources import by_kind
from cli import addons, autoscaling, block_volumes, monitoring, nodepools, pki, processes, vertical
from cli.layout import ClusterConfig, ClusterPaths
from csi_controllers.app import lease_of
from metrics_adapter.config import read


@pytest.mark.parametrize("only", [[], ["apiserver", "metrics-server"]])
def test_objects_lie_where_they_belong(only: list[str]) -> None:
    config = ClusterConfig(name="demo", index=3, only=only, prometheus=True)
    placed = [
        *addons.metrics_server(config, b"PEM"),
        *monitoring.prometheus(config),
        *monitoring.metrics_adapter(config, b"PEM"),
        *autoscaling.objects(),
        *vertical.objects(),
    ]
    assert len({(path, obj["metadata"]["name"]) for path, obj in placed}) == len(placed)
    for path, obj in placed:
        group, _, version = obj["apiVersion"].rpartition("/")
        resource = by_kind(group, version, obj["kind"])
        assert resource is not None
        root = f"/apis/{group}/{version}" if group else f"/api/{version}"
        scope = f"/namespaces/{obj['metadata']['namespace']}" if resource.namespaced else ""
        assert path == f"{root}{scope}/{resource.plural}"


def test_nobody_may_write_the_leases_of_others() -> None:
    config = ClusterConfig(name="demo", index=3, block_volumes="loop")
    placed = [*autoscaling.objects(), *vertical.objects(), *nodepools.objects(), *block_volumes.objects(config)]
    rules = [rule for _, obj in placed if obj["kind"] == "ClusterRole" for rule in obj.get("rules") or ()]
    writing = [each for each in rules if "leases" in each["resources"] and {"update", "patch"} & set(each["verbs"])]
    names = [name for each in writing for name in each.get("resourceNames") or ["*"]]
    assert {"nodepool-autoscaler", lease_of(block_volumes.DRIVER)} <= set(names)
    assert "*" not in names


def test_the_endpoint_is_the_process() -> None:
    config = ClusterConfig(name="demo", index=3)
    objects = {obj["kind"]: obj for _, obj in addons.metrics_server(config, b"PEM")}
    slices, service = objects["EndpointSlice"], objects["APIService"]["spec"]["service"]
    address = f"{slices['endpoints'][0]['addresses'][0]}:{slices['ports'][0]['port']}"
    spec = processes.metrics_server(config, ClusterPaths(Path("/x")))
    assert f"--listen={address}" in spec.argv
    assert objects["Service"]["spec"]["ports"][0]["port"] == service["port"]


def test_the_vertical_autoscaler_runs_where_it_is_wanted() -> None:
    paths = ClusterPaths(Path("/x"))
    config = ClusterConfig(name="demo", index=3, vpa=True)
    names = {spec.name for spec in processes.control_plane(config, paths, "etcd")}
    without = {spec.name for spec in processes.control_plane(ClusterConfig(name="demo", index=3), paths, "etcd")}
    assert names - without == {"vertical-pod-autoscaler"}
    spec = processes.vertical_autoscaler(config, paths)
    assert f"--explain=unix:{processes.explain_socket(paths, 'vertical-pod-autoscaler')}" in spec.argv


def test_without_machines_only_the_api_server_reaches_it() -> None:
    config = ClusterConfig(name="demo", index=3, only=["apiserver", "metrics-server"])
    objects = {obj["kind"]: obj for _, obj in addons.metrics_server(config, b"PEM")}
    assert "EndpointSlice" not in objects
    port = objects["APIService"]["spec"]["service"]["port"]
    assert f"--listen=127.0.0.1:{port}" in processes.metrics_server(config, ClusterPaths(Path("/x"))).argv


def test_the_adapter_is_found_where_it_listens() -> None:
    config = ClusterConfig(name="demo", index=3, prometheus=True)
    objects = {obj["kind"]: obj for _, obj in monitoring.metrics_adapter(config, b"PEM")}
    slices = objects["EndpointSlice"]
    address = f"{slices['endpoints'][0]['addresses'][0]}:{slices['ports'][0]['port']}"
    assert f"--listen={address}" in processes.metrics_adapter(config, ClusterPaths(Path("/x"))).argv
    plane = [spec.name for spec in processes.control_plane(config, ClusterPaths(Path("/x")), "etcd")]
    assert {"prometheus", "metrics-adapter"} <= set(plane)
    without = processes.control_plane(ClusterConfig(name="demo", index=3), ClusterPaths(Path("/x")), "etcd")
    assert not {"prometheus", "metrics-adapter"} & {spec.name for spec in without}


@pytest.mark.parametrize(
    ("scale", "interval", "window"),
    [(1.0, "15s", "60s"), (15.0, "1s", "4s"), (1000.0, "1s", "4s"), (0.5, "30s", "120s")],
)
def test_files_of_prometheus(tmp_path: Path, scale: float, interval: str, window: str) -> None:
    """Prometheus' own are made anew, the adapter's rules are the user's once they are there."""
    paths = ClusterPaths(tmp_path)
    config = ClusterConfig(name="demo", index=3, time_scale=scale, prometheus=True)
    monitoring.write(config, paths)
    told = msgspec.yaml.decode((paths.prometheus / "prometheus.yml").read_bytes())
    assert told["global"]["scrape_interval"] == interval
    roles = {sd["role"] for job in told["scrape_configs"] for sd in job.get("kubernetes_sd_configs", ())}
    assert roles == {"pod", "endpoints", "node"}
    rules = paths.adapter_rules.read_text()
    assert f"[{window}]" in rules
    assert len(read(rules).rules) == 3
    paths.adapter_rules.write_text("rules: []")
    monitoring.write(config, paths)
    assert paths.adapter_rules.read_text() == "rules: []"


@pytest.mark.parametrize(
    ("address", "port", "expected"),
    [
        ("10.0.0.1:80", "8080", "10.0.0.1:8080"),
        ("10.0.0.1", "8080", "10.0.0.1:8080"),
        ("[fd00::1]:80", "8080", "[fd00::1]:8080"),
        ("10.0.0.1:80", "", None),
        ("10.0.0.1:80", "http", None),
    ],
)
def test_the_annotated_port_replaces_the_declared_one(address: str, port: str, expected: str | None) -> None:
    config = ClusterConfig(name="demo", index=3, prometheus=True)
    jobs = {job["job_name"]: job for job in monitoring.scraping(config, ClusterPaths(Path("/x")))["scrape_configs"]}
    rule = next(
        each for each in jobs["kubernetes-pods"]["relabel_configs"] if each.get("target_label") == "__address__"
    )
    match = re.fullmatch(rule["regex"], f"{address};{port}")
    assert (match.expand(rule["replacement"].replace("$", "\\")) if match else None) == expected


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
