"""metrics-server as a whole: kubelets of the test's own, the real API server, aggregation in between, kubectl top."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from aggregated.access import Access, ApiReviews, Authorities
from aggregated.door import Door, tls_context
from client.client import Client
from client.informer import Informers
from machinery.clock import RealClock
from machinery.errors import ServiceUnavailable
from machinery.tls import KeyPair
from metrics_server.cluster import Cluster
from metrics_server.handlers import Handlers
from metrics_server.scraper import Scraper
from metrics_server.storage import Storage
from proto.kubelet.v1 import kubelet_pb2 as pb
from tests.harness.aggregated import allow, register
from tests.harness.apiserver import (
    ADMIN_TOKEN,
    DEADLINE,
    USER_TOKEN,
    RestClient,
    RunningApiServer,
    eventually,
    running_apiserver,
    shared_pki,
    until_status,
)
from tests.harness.nanokube import kubectl as kubectl_binary
from tests.integration.apiserver.test_proxy import own_address

BASE = "/apis/metrics.k8s.io/v1beta1"
S = 1_000_000_000
MERGE = {"content-type": "application/merge-patch+json"}
NAME = "metrics-server"
USER = f"system:serviceaccount:kube-system:{NAME}"


@dataclass
class FakeKubelets:
    """Answers by node; time and counters move with each round as the test says."""

    at: int = 1000 * S
    pods: dict[str, list[tuple[str, str, dict[str, tuple[int, int]]]]] = field(default_factory=dict)
    dead: set[str] = field(default_factory=set)
    rounds: int = 0

    async def ask(self, address: str, node: str) -> pb.StatsSummary:
        if node in self.dead:
            raise ServiceUnavailable("connection refused")
        summary = pb.StatsSummary(node=node, usage=self._usage(500_000_000, 1 << 30))
        for namespace, name, containers in self.pods.get(node, ()):
            entry = pb.PodUsage(namespace=namespace, name=name)
            for container, (cpu, memory) in containers.items():
                entry.containers.append(pb.ContainerUsage(name=container, usage=self._usage(cpu, memory)))
            summary.pods.append(entry)
        return summary

    def _usage(self, nanocores: int, memory: int) -> pb.Usage:
        now = self.at + self.rounds * 15 * S
        used = nanocores * self.rounds * 15
        return pb.Usage(time_unix_nanos=now, cpu_usage_core_nanoseconds=used, memory_working_set_bytes=memory)

    async def keep_only(self, addresses: Any) -> None:
        list(addresses)


@dataclass
class Site:
    server: RunningApiServer
    rest: RestClient
    kubelets: FakeKubelets
    scraper: Scraper
    storage: Storage
    home: Path

    async def scrape(self, times: int = 1) -> None:
        for _ in range(times):
            self.storage.store(await self.scraper.scrape())
            self.kubelets.rounds += 1

    async def kubectl(self, *arguments: str) -> tuple[int, str]:
        told = ["--server", self.server.url, "--token", ADMIN_TOKEN]
        process = await asyncio.create_subprocess_exec(
            kubectl_binary(),
            *told,
            "--certificate-authority",
            str(self.server.ca),
            *arguments,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={**os.environ, "HOME": str(self.home), "KUBECONFIG": str(self.home / "none")},
        )
        out, _ = await asyncio.wait_for(process.communicate(), DEADLINE)
        return process.returncode or 0, out.decode()


async def node(rest: RestClient, name: str) -> None:
    status = {
        "addresses": [{"type": "InternalIP", "address": "192.0.2.1"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}},
        "capacity": {"cpu": "2", "memory": "2Gi"},
        "allocatable": {"cpu": "2", "memory": "2Gi"},
        "conditions": [{"type": "Ready", "status": "True"}],
    }
    assert (await rest.post("/api/v1/nodes", {"metadata": {"name": name}, "status": status})).status == 201


async def pod(rest: RestClient, name: str, on: str, phase: str = "Running", **labels: str) -> None:
    spec = {"nodeName": on, "containers": [{"name": "main", "image": "i"}, {"name": "side", "image": "i"}]}
    body = {"metadata": {"name": name, "labels": labels}, "spec": spec}
    pods = "/api/v1/namespaces/default/pods"
    answer = await rest.post(pods, body)
    assert answer.status == 201, answer.body
    told = {"status": {"phase": phase}}
    assert (await rest.request("PATCH", f"{pods}/{name}/status", told, MERGE)).status == 200


async def prepare(rest: RestClient) -> None:
    """The ServiceAccount that pods need, and the right of the metrics-server to look and to ask."""
    await rest.post("/api/v1/namespaces/default/serviceaccounts", {"metadata": {"name": "default"}})
    rules = [{"apiGroups": [""], "resources": ["pods", "nodes"], "verbs": ["get", "list", "watch"]}]
    await allow(rest, NAME, rules)


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    host, pki, clock = own_address(), shared_pki(), RealClock()
    name = "metrics-server.kube-system.svc"
    serving = pki.authority.issue_to("metrics-server", name, (), [name], client=False, server=True)
    async with running_apiserver() as server, contextlib.AsyncExitStack() as ends:
        rest = server.rest()
        await prepare(rest)
        client = Client.connect(server.grpc_target, pki.client(USER, "system:serviceaccounts"))
        ends.push_async_callback(client.close)
        informers = Informers(client, clock)
        cluster, storage, kubelets = Cluster(informers), Storage(), FakeKubelets()
        scraper = Scraper(cluster, storage, kubelets, clock)  # type: ignore[arg-type]
        authorities = Authorities(pki.ca.read_text(), pki.front_proxy.ca.read_text())
        handlers = Handlers(cluster, storage, Access(authorities, ApiReviews(client), clock), clock)
        door = Door(
            handlers,
            tls_context(KeyPair(pki.ca, serving.cert, serving.key), [authorities.client, authorities.front_proxy]),
        )
        await door.start("0.0.0.0", 0)
        ends.push_async_callback(door.close)
        running = asyncio.ensure_future(informers.run())
        try:
            for each in ("worker-1", "worker-2"):
                await node(rest, each)
            await pod(rest, "web", "worker-1", app="web")
            await pod(rest, "db", "worker-2", app="db")
            await pod(rest, "done", "worker-2", "Succeeded")
            usage = {"main": (250_000_000, 64 << 20), "side": (1_500_000, 1 << 20)}
            kubelets.pods = {
                "worker-1": [("default", "web", usage)],
                # A kubelet tells of its own pods only.
                "worker-2": [("default", "db", usage), ("default", "done", usage), ("default", "web", {"x": (9, 9)})],
            }
            async with asyncio.timeout(DEADLINE):
                await informers.wait_synced()
            await eventually(lambda: {p.status.phase for p in cluster.pods.lister.list()} == {"Running", "Succeeded"})
            await register(rest, NAME, host, door.port, pki.ca.read_bytes(), "metrics.k8s.io/v1beta1")
            yield Site(server, rest, kubelets, scraper, storage, tmp_path)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


async def test_nodes_and_pods(site: Site) -> None:
    rest = site.rest
    await site.scrape()
    assert (await rest.get(f"{BASE}/nodes")).json["items"] == []  # one point says nothing yet
    await site.scrape()
    listed = (await rest.get(f"{BASE}/nodes")).json
    assert (listed["kind"], [item["metadata"]["name"] for item in listed["items"]]) == (
        "NodeMetricsList",
        ["worker-1", "worker-2"],
    )
    found = (await rest.get(f"{BASE}/nodes/worker-1")).json
    assert (found["kind"], found["usage"], found["window"]) == ("NodeMetrics", {"cpu": "500m", "memory": "1Gi"}, "15s")
    pods = (await rest.get(f"{BASE}/pods")).json["items"]
    assert [item["metadata"]["name"] for item in pods] == ["db", "web"]  # ended pods use nothing
    web = (await rest.get(f"{BASE}/namespaces/default/pods/web")).json
    assert web["containers"] == [
        {"name": "main", "usage": {"cpu": "250m", "memory": "64Mi"}},
        {"name": "side", "usage": {"cpu": "1500u", "memory": "1Mi"}},
    ]
    assert web["metadata"]["labels"] == {"app": "web"}
    chosen = (await rest.get(f"{BASE}/namespaces/default/pods?labelSelector=app%3Ddb")).json["items"]
    assert [item["metadata"]["name"] for item in chosen] == ["db"]
    chosen = (await rest.get(f"{BASE}/pods?fieldSelector=metadata.name%3Dweb")).json["items"]
    assert [item["metadata"]["name"] for item in chosen] == ["web"]


@pytest.mark.parametrize(
    ("method", "path", "status", "message"),
    [
        ("GET", "nodes/none", 404, 'nodes "none" not found'),
        ("GET", "namespaces/default/pods/done", 404, 'podmetrics.metrics.k8s.io "default/done" not found'),
        ("GET", "namespaces/default/pods/none", 404, 'pods "default/none" not found'),
        ("GET", "pods?labelSelector=%21%21", 400, ""),
        ("GET", "pods?fieldSelector=spec.nodeName%3Dx", 400, ""),
        ("GET", "pods?watch=true", 405, ""),
        ("DELETE", "nodes/worker-1", 405, ""),
        ("GET", "things", 404, ""),
    ],
)
async def test_refusals(site: Site, method: str, path: str, status: int, message: str) -> None:
    await site.scrape(2)
    answer = await site.rest.request(method, f"{BASE}/{path}")
    assert (answer.status, answer.json["kind"]) == (status, "Status"), answer.body
    assert not message or answer.json["message"] == message


async def test_a_node_that_does_not_answer_is_left_out(site: Site) -> None:
    await site.scrape(2)
    site.kubelets.dead = {"worker-2"}
    await site.scrape()
    assert [item["metadata"]["name"] for item in (await site.rest.get(f"{BASE}/nodes")).json["items"]] == ["worker-1"]
    assert (await site.rest.get(f"{BASE}/nodes/worker-2")).status == 404
    assert [item["metadata"]["name"] for item in (await site.rest.get(f"{BASE}/pods")).json["items"]] == ["web"]
    site.kubelets.dead = set()
    await site.scrape()
    assert (await site.rest.get(f"{BASE}/nodes/worker-2")).status == 404  # again, one point says nothing
    await site.scrape()
    assert (await site.rest.get(f"{BASE}/nodes/worker-2")).status == 200


async def test_kubectl(site: Site) -> None:
    await site.scrape(2)
    code, out = await site.kubectl("top", "nodes")
    rows = [line.split() for line in out.splitlines()]
    assert (code, rows[1]) == (0, ["worker-1", "500m", "25%", "1024Mi", "50%"]), out
    code, out = await site.kubectl("top", "pods", "--containers")
    assert ["web", "main", "250m", "64Mi"] in [line.split() for line in out.splitlines()], out
    code, out = await site.kubectl("top", "pod", "web")
    assert ["web", "252m", "65Mi"] in [line.split() for line in out.splitlines()], out
    code, out = await site.kubectl("get", "pods.metrics.k8s.io", "-n", "default")
    lines = [line.split() for line in out.splitlines()]
    assert lines[0] == ["NAME", "CPU", "MEMORY", "WINDOW"], out
    assert ["web", "251500u", "65Mi", "15s"] in lines
    code, out = await site.kubectl("get", "apiservice", "v1beta1.metrics.k8s.io")
    assert out.splitlines()[1].split()[:3] == ["v1beta1.metrics.k8s.io", "kube-system/metrics-server", "True"]
    code, out = await site.kubectl("explain", "nodes", "--api-version", "metrics.k8s.io/v1beta1")
    assert "NodeMetrics" in out, out
    code, out = await site.kubectl("api-resources", "--api-group", "metrics.k8s.io")
    assert "PodMetrics" in out


async def test_only_who_may_ask_is_told(site: Site) -> None:
    await site.scrape(2)
    rest = site.server.rest(USER_TOKEN)
    refused = await rest.get(f"{BASE}/nodes")
    assert refused.status == 403
    role = {"metadata": {"name": "reader"}, "rules": [{"apiGroups": ["metrics.k8s.io"], "resources": ["pods"]}]}
    role["rules"][0]["verbs"] = ["list"]  # type: ignore[index]
    rbac = "/apis/rbac.authorization.k8s.io/v1"
    await site.rest.post(f"{rbac}/namespaces/default/roles", role)
    binding = {
        "metadata": {"name": "reader"},
        "subjects": [{"kind": "User", "name": "alice", "apiGroup": "rbac.authorization.k8s.io"}],
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "reader"},
    }
    await site.rest.post(f"{rbac}/namespaces/default/rolebindings", binding)
    await until_status(rest, f"{BASE}/namespaces/default/pods", lambda status: status == 200)
    # Both servers ask the same question, so alice never gets past the first; asked directly, the second refuses too.
    pki = shared_pki()
    slices = "/apis/discovery.k8s.io/v1/namespaces/kube-system/endpointslices/metrics-server"
    told = (await site.rest.get(slices)).json
    direct = RestClient(told["endpoints"][0]["addresses"][0], told["ports"][0]["port"], pki.ca)
    for token, path, status in (
        (USER_TOKEN, "namespaces/default/pods", 200),
        (USER_TOKEN, "nodes", 403),
        ("wrong", "nodes", 401),
        ("", "nodes", 403),
    ):
        assert await _direct(direct, token, f"{BASE}/{path}") == status
    forged = pki.client("mallory", "dev")
    spoken = {"x-remote-user": "admin", "x-remote-group": "system:masters"}
    assert await _direct(direct, "", f"{BASE}/nodes", pair=forged, headers=spoken) == 403


async def _direct(
    rest: RestClient, token: str, path: str, pair: KeyPair | None = None, headers: dict[str, str] | None = None
) -> int:
    """The status of a request that goes past the API server."""
    context = RestClient(rest.host, rest.port, rest.ca, token, pair)._tls()
    reader, writer = await asyncio.open_connection(
        rest.host, rest.port, ssl=context, server_hostname="metrics-server.kube-system.svc"
    )
    told = {"authorization": f"Bearer {token}"} if token else {}
    lines = [f"GET {path} HTTP/1.1", "host: x", "connection: close"]
    lines += [f"{key}: {value}" for key, value in {**told, **(headers or {})}.items()]
    writer.write("\r\n".join([*lines, "", ""]).encode())
    try:
        async with asyncio.timeout(DEADLINE):
            raw = await reader.read()
    finally:
        writer.close()
    head, _, body = raw.partition(b"\r\n\r\n")
    json.loads(body)
    return int(head.split(b" ")[1])


async def test_documents_are_merged(site: Site) -> None:
    swagger = (await site.rest.get("/openapi/v2")).json
    assert f"{BASE}/nodes" in swagger["paths"]
    name = "io.k8s.metrics.pkg.apis.metrics.v1beta1.PodMetrics"
    assert swagger["definitions"][name]["x-kubernetes-group-version-kind"][0]["kind"] == "PodMetrics"
    # Definitions that both have are the API server's.
    assert "properties" in swagger["definitions"]["io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"]
    await until_status(site.rest, f"/openapi/v3{BASE}", lambda status: status == 200)
    paths = (await site.rest.get("/openapi/v3")).json["paths"]
    document = (await site.rest.get(paths[BASE[1:]]["serverRelativeURL"])).json
    assert name in document["components"]["schemas"]
