"""What `up` installs into a cluster besides its processes: the objects that make them known.

Owns: the metrics-server's objects, as upstream's manifests have them, and the application of all at every `up`. Starts
no process; that the endpoint is a process of the host, not a pod, is the one difference. Called by `cli.cluster`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import msgspec

from cli import autoscaling, block_volumes, cloud_setup, monitoring, nodepools, vertical
from cli.addon_objects import MANAGER, Addon, Placed, rule
from cli.errors import CommandError
from cli.layout import ClusterConfig, ClusterPaths
from cli.processes import has_cloud, provisions_nodes, scales_nodes, serves_metrics
from cli.rest import AdminClient

SERVED_WITHIN = 5.0
POLL = 0.05


def metrics_server(config: ClusterConfig, ca: bytes) -> Iterator[Placed]:
    """`ca`: PEM of who signed the serving certificate."""
    addon = Addon("metrics-server")
    yield addon.account()
    read = rule(["metrics.k8s.io"], ["pods", "nodes"])
    yield addon.cluster_role("system:aggregated-metrics-reader", [read], aggregated=True)
    scrape = rule([""], ["nodes/metrics"], ("get",))
    yield addon.cluster_role("system:metrics-server", [scrape, rule([""], ["pods", "nodes"])])
    yield addon.auth_reader("metrics-server-auth-reader")
    yield addon.cluster_binding("metrics-server:system:auth-delegator", "system:auth-delegator")
    yield addon.cluster_binding("system:metrics-server", "system:metrics-server")
    yield from addon.service(config, config.metrics_port)
    yield addon.api_service(config, config.metrics_port, "metrics.k8s.io/v1beta1", 100, ca)


def _wanted(config: ClusterConfig, ca: bytes) -> Iterator[Placed]:
    if serves_metrics(config):
        yield from metrics_server(config, ca)
    if has_cloud(config):
        yield from cloud_setup.rights()
    if scales_nodes(config):
        yield from autoscaling.objects()
    if provisions_nodes(config):
        yield from nodepools.objects()
        yield from nodepools.node_classes()
    if config.prometheus:
        yield from monitoring.prometheus(config)
        yield from monitoring.metrics_adapter(config, ca)
    if config.vpa:
        yield from vertical.objects()
    if config.block_volumes:
        yield from block_volumes.objects(config)


def install(config: ClusterConfig, paths: ClusterPaths, client: AdminClient) -> None:
    """Apply everything. Raises CommandError with the API server's words, or OSError when it does not answer."""
    for collection, obj in _wanted(config, (paths.pki / "ca.crt").read_bytes()):
        path = f"{collection}/{obj['metadata']['name']}?fieldManager={MANAGER}&force=true"
        ends = time.monotonic() + SERVED_WITHIN
        while True:
            code, body = client.request("PATCH", path, msgspec.json.encode(obj), "application/apply-patch+yaml")
            if code != 404 or time.monotonic() > ends:
                break
            time.sleep(POLL)  # a kind that was defined just now is not served yet
        if code not in (200, 201):
            raise CommandError(f"{obj['kind']} {obj['metadata']['name']}: {body.decode(errors='replace')}")
