"""Prometheus and the metrics-adapter of a cluster: their configuration files and the objects that let them in.

Owns: `prometheus/` in the cluster's folder. Prometheus finds pods and Services that ask for it by the annotations
prometheus.io/scrape, port, path and scheme, nodes that do, and scrapes the API server; more jobs may be put beside in
`scrape.d/`. Called by `cli.cluster` before the supervisor starts, and by `cli.addons`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from cli.addon_objects import Addon, Obj, Placed, rule
from cli.layout import ClusterConfig, ClusterPaths

_ANNOTATION = "__meta_kubernetes_{role}_annotation_prometheus_io_{name}"


def write(config: ClusterConfig, paths: ClusterPaths) -> None:
    """Make the files; the adapter's rules only once, they are the user's from then on."""
    from metrics_adapter.config import defaults

    folder = paths.prometheus
    (folder / "scrape.d").mkdir(parents=True, exist_ok=True, mode=0o700)
    (folder / "prometheus.yml").write_bytes(msgspec.json.format(msgspec.json.encode(scraping(config, paths))) + b"\n")
    rules = paths.adapter_rules
    if not rules.exists():
        rules.write_text(defaults(config.rate_window))


def scraping(config: ClusterConfig, paths: ClusterPaths) -> Obj:
    """prometheus.yml."""
    seconds = config.scrape_interval
    tls = {
        "ca_file": str(paths.pki / "ca.crt"),
        "cert_file": str(paths.pki / "prometheus.crt"),
        "key_file": str(paths.pki / "prometheus.key"),
    }
    door = {"api_server": f"https://127.0.0.1:{config.rest_port}", "tls_config": tls}

    def job(name: str, role: str, source: str, *relabel: Obj) -> Obj:
        return {
            "job_name": name,
            "kubernetes_sd_configs": [{"role": role, **door}],
            "relabel_configs": [*_annotated(source), *relabel],
        }

    apiserver = {
        "job_name": "kubernetes-apiservers",
        "scheme": "https",
        "tls_config": tls,
        "static_configs": [{"targets": [f"127.0.0.1:{config.rest_port}"]}],
    }
    own_pod = _ANNOTATION.format(role="pod", name="scrape")
    return {
        "global": {"scrape_interval": f"{seconds}s", "scrape_timeout": f"{min(seconds, 10)}s"},
        "scrape_config_files": [str(paths.prometheus / "scrape.d" / "*.yml")],
        "scrape_configs": [
            apiserver,
            job(
                "kubernetes-pods",
                "pod",
                "pod",
                {"source_labels": ["__meta_kubernetes_pod_phase"], "regex": "Running", "action": "keep"},
                _label("__meta_kubernetes_namespace", "namespace"),
                _label("__meta_kubernetes_pod_name", "pod"),
                _label("__meta_kubernetes_pod_node_name", "node"),
            ),
            job(
                "kubernetes-service-endpoints",
                # Not endpointslice: Prometheus gives that up for good when the API server does not answer at its start.
                "endpoints",
                "service",
                {"source_labels": [own_pod], "regex": "true", "action": "drop"},  # scraped as a pod already
                _label("__meta_kubernetes_namespace", "namespace"),
                _label("__meta_kubernetes_service_name", "service"),
                _label("__meta_kubernetes_pod_name", "pod"),
            ),
            job("kubernetes-nodes", "node", "node", _label("__meta_kubernetes_node_name", "node")),
        ],
    }


def _annotated(role: str) -> list[Obj]:
    """Keep what asks to be scraped, and ask it as it says."""

    def annotation(name: str) -> str:
        return _ANNOTATION.format(role=role, name=name)

    return [
        {"source_labels": [annotation("scrape")], "regex": "true", "action": "keep"},
        {"source_labels": [annotation("scheme")], "regex": "(https?)", "target_label": "__scheme__"},
        {"source_labels": [annotation("path")], "regex": "(.+)", "target_label": "__metrics_path__"},
        {
            "source_labels": ["__address__", annotation("port")],
            "regex": r"(\[[^\]]+\]|[^:]+)(?::\d+)?;(\d+)",
            "replacement": "$1:$2",
            "target_label": "__address__",
        },
    ]


def _label(source: str, target: str) -> Obj:
    return {"source_labels": [source], "regex": "(.+)", "target_label": target}


def prometheus(config: ClusterConfig) -> Iterator[Placed]:
    """The right to discover and to scrape."""
    addon = Addon("prometheus")
    yield addon.account()
    rules: list[dict[str, Any]] = [
        rule([""], ["nodes", "nodes/metrics", "services", "endpoints", "pods"]),
        rule(["discovery.k8s.io"], ["endpointslices"]),
        rule(["networking.k8s.io"], ["ingresses"]),
        {"nonResourceURLs": ["/metrics"], "verbs": ["get"]},
    ]
    yield addon.cluster_role("prometheus", rules)
    yield addon.cluster_binding("prometheus", "prometheus")


def metrics_adapter(config: ClusterConfig, ca: bytes) -> Iterator[Placed]:
    """`ca`: PEM of who signed the serving certificate."""
    addon, port = Addon("metrics-adapter"), config.adapter_port
    yield addon.account()
    read = rule(["custom.metrics.k8s.io", "external.metrics.k8s.io"], ["*"])
    yield addon.cluster_role("system:aggregated-custom-metrics-reader", [read], aggregated=True)
    look = [
        rule([""], ["namespaces", "nodes", "pods", "services"]),
        rule(["apps"], ["daemonsets", "deployments", "replicasets", "statefulsets"]),
        rule(["batch"], ["cronjobs", "jobs"]),
        rule(["networking.k8s.io"], ["ingresses"]),
    ]
    yield addon.cluster_role("metrics-adapter:resource-reader", look)
    yield addon.auth_reader("metrics-adapter-auth-reader")
    yield addon.cluster_binding("metrics-adapter:system:auth-delegator", "system:auth-delegator")
    yield addon.cluster_binding("metrics-adapter:resource-reader", "metrics-adapter:resource-reader")
    yield from addon.service(config, port)
    for api_version, priority in (
        ("custom.metrics.k8s.io/v1beta2", 200),
        ("custom.metrics.k8s.io/v1beta1", 100),
        ("external.metrics.k8s.io/v1beta1", 100),
    ):
        yield addon.api_service(config, port, api_version, priority, ca)
