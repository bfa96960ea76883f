"""The vertical autoscaler against a real API server: scripted usage, its webhook, what it writes, evicts and resizes.

Over 500 lines because its three parts act on each other, in one scene that is a third of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from api import resources
from api.models import admissionregistration_v1, apps_v1, autoscaling_v2, core_v1, policy_v1
from api.resources import Resource
from client.client import Client
from controller_manager.environment import Options
from machinery import quantity
from machinery.clock import RealClock
from machinery.errors import Invalid, StatusError
from machinery.meta import rfc3339_micro
from machinery.tls import KeyPair
from tests.harness.apiserver import shared_pki
from tests.integration.controller_manager.hollow import Cluster, eventually, running_cluster
from tests.integration.controller_manager.test_disruption import web
from vertical_autoscaler.app import Autoscaler
from vertical_autoscaler.definitions import definitions
from vertical_autoscaler.door import Door
from vertical_autoscaler.objects import CHECKPOINTS, VPAS
from vertical_autoscaler.registration import CONFIGURATIONS, NAME

PODS, EVENTS = resources.of(core_v1.Pod), resources.of(core_v1.Event)
DEPLOYMENTS = resources.of(apps_v1.Deployment)
NS, SCALE = "default", 600.0  # a minute is 0.1 s
MI = 2**20
Obj = dict[str, Any]


@dataclass
class Metrics:
    """metrics.k8s.io: each pod of the namespace uses `cores` and `memory`."""

    client: Client
    clock: RealClock
    cores: float | None = None
    memory: int = 300 * MI
    extra: list[Obj] = field(default_factory=list)

    async def get(self, path: str, params: Mapping[str, str] | None = None) -> Obj:
        if self.cores is None or path != f"/apis/metrics.k8s.io/v1beta1/namespaces/{NS}/pods":
            raise StatusError("the server is currently unable to handle the request", code=503)
        usage = {"cpu": f"{round(self.cores * 1000)}m", "memory": str(self.memory)}
        now = rfc3339_micro(self.clock.now())
        return {
            "items": [
                {
                    "metadata": {"name": pod["metadata"]["name"], "namespace": NS},
                    "timestamp": now,
                    "containers": [{"name": each["name"], "usage": usage} for each in pod["spec"]["containers"]],
                }
                for pod in (await self.client.list(PODS, NS)).items
            ]
            + self.extra
        }


@dataclass
class Site:
    """A cluster with the autoscaler beside it."""

    cluster: Cluster
    client: Client
    metrics: Metrics
    autoscaler: Autoscaler
    door: Door
    clock: RealClock

    async def vpa(self, name: str = "web", mode: str | None = "Recreate", **spec: Any) -> Obj:
        policy = {"updatePolicy": {"updateMode": mode}} if mode is not None else {}
        body = {
            "apiVersion": VPAS.group_version,
            "kind": VPAS.kind,
            "metadata": {"name": name, "namespace": NS},
            "spec": {"targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}, **policy, **spec},
        }
        return await self.client.create(body, resource=VPAS)

    async def status(self, accept: Callable[[Obj], Any], what: str, name: str = "web") -> Obj:
        async def probe() -> Obj | None:
            found: Obj = (await self.client.get(VPAS, name, NS)).get("status") or {}
            by_type = {each["type"]: each for each in found.get("conditions") or ()}
            told = {each["containerName"]: each for each in _recommended(found)}
            return {**by_type, **told} if accept({**by_type, **told}) else None

        found: Obj = await eventually(probe, what)
        return found

    async def pods(self, accept: Callable[[list[Obj]], bool], what: str) -> list[Obj]:
        async def probe() -> list[Obj] | None:
            living = [pod for pod in (await self.client.list(PODS, NS)).items if _lives(pod)]
            return living if accept(living) else None

        found: list[Obj] = await eventually(probe, what)
        return found

    async def told(self, reason: str) -> list[Obj]:
        async def probe() -> list[Obj]:
            return [each for each in (await self.client.list(EVENTS, NS)).items if each["reason"] == reason]

        found: list[Obj] = await eventually(probe, f"an event {reason}")
        return found

    async def turns(self, count: int = 5) -> None:
        """Let some turns pass."""
        await self.clock.sleep(count * 60.0)


def _recommended(status: Obj) -> list[Obj]:
    return list((status.get("recommendation") or {}).get("containerRecommendations") or ())


def _lives(pod: Obj) -> bool:
    return "deletionTimestamp" not in pod["metadata"] and (pod.get("status") or {}).get("phase") == "Running"


def request(pod: Obj, resource: str = "cpu") -> float:
    found = (pod["spec"]["containers"][0].get("resources") or {}).get("requests") or {}
    return float(quantity.parse(found.get(resource, "0")))


def uids(pods: list[Obj]) -> set[str]:
    return {pod["metadata"]["uid"] for pod in pods}


@contextlib.asynccontextmanager
async def running(cluster: Cluster, metrics: Metrics, clock: RealClock) -> AsyncIterator[Site]:
    pki = shared_pki()
    pair = pki.authority.issue_to("vpa-webhook", "vpa-webhook", sans=["127.0.0.1"], server=True)
    autoscaler = Autoscaler(cluster.client, metrics, clock)
    door = Door(autoscaler.admission.review, KeyPair(pki.ca, pair.cert, pair.key))
    await door.start("127.0.0.1", 0)
    ready = asyncio.Event()
    url = f"https://127.0.0.1:{door.port}/"
    task = asyncio.ensure_future(autoscaler.run(url, pki.ca.read_bytes(), ready.set))
    try:
        async with asyncio.timeout(20):
            await ready.wait()
        yield Site(cluster, cluster.client, metrics, autoscaler, door, clock)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await door.close()


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    async with running_cluster(nodes=2, clock=RealClock(50.0), options=Options()) as made:
        for definition in definitions():
            await made.client.create(definition)

        async def served() -> bool:
            await made.client.list(VPAS)
            await made.client.list(CHECKPOINTS)
            return True

        await eventually(served, "the kinds")
        yield made


@pytest.fixture
async def site(cluster: Cluster) -> AsyncIterator[Site]:
    clock = RealClock(SCALE)
    async with running(cluster, Metrics(cluster.client, clock), clock) as made:
        yield made


def target(replicas: int = 2, **requests: str) -> Obj:
    made = web(replicas)
    limits = {"limits": {"cpu": "200m"}} if requests.get("cpu") == "100m" else {}
    made["spec"]["template"]["spec"]["containers"][0]["resources"] = {"requests": requests, **limits}
    return made


async def deploy(site: Site, replicas: int = 2, **requests: str) -> list[Obj]:
    await site.client.create(target(replicas, **(requests or {"cpu": "100m"})))
    return await site.pods(lambda pods: len(pods) == replicas, f"{replicas} pods")


async def test_pods_are_recreated_with_what_they_need(site: Site) -> None:
    before = await deploy(site)
    site.metrics.cores = 1.0
    await site.vpa()
    status = await site.status(lambda found: "main" in found, "a recommendation")
    assert status["RecommendationProvided"]["status"] == "True"
    assert status["LowConfidence"]["status"] == "True"
    main = status["main"]
    assert 1.15 <= quantity.parse(main["target"]["cpu"]) < 1.25
    assert 345 * MI <= quantity.parse(main["target"]["memory"]) < 370 * MI
    assert main["uncappedTarget"] == main["target"]
    after = await site.pods(
        lambda pods: len(pods) == 2 and all(request(pod) > 1 for pod in pods), "pods with new requests"
    )
    assert not uids(before) & uids(after)
    for pod in after:
        notes = pod["metadata"]["annotations"]
        assert notes["vpaObservedContainers"] == "main"
        assert notes["vpaUpdates"] == (
            "Pod resources updated by web: container 0: cpu request, memory request, cpu limit"
        )
        limit = quantity.parse(pod["spec"]["containers"][0]["resources"]["limits"]["cpu"])
        assert limit == pytest.approx(2 * request(pod), abs=0.002)  # as 200m stood to 100m
    assert {each["message"] for each in await site.told("EvictedByVPA")} == {
        "Pod was evicted by VPA Updater to apply resource recommendation."
    }
    assert (await site.told("EvictedPod"))[0]["involvedObject"]["kind"] == "VerticalPodAutoscaler"
    decision = site.autoscaler.explain(NS, "web")
    assert decision is not None
    assert "recommends main cpu" in decision.headline
    assert [table.title for table in decision.tables] == ["Usage", "Recommendation", "Pods"]


async def test_pods_are_resized_in_place_and_recreated_where_that_fails(site: Site) -> None:
    before = await deploy(site)
    site.metrics.cores = 1.0
    await site.vpa(mode="InPlaceOrRecreate")
    after = await site.pods(lambda pods: all(request(pod) > 1 for pod in pods), "raised requests")
    assert uids(after) == uids(before)
    assert {each["message"] for each in await site.told("InPlaceResizedByVPA")} == {
        "Pod was resized in place by VPA Updater."
    }

    async def noted() -> bool:
        found = (await site.client.list(PODS, NS)).items
        return all("vpaInPlaceUpdated" in (pod["metadata"].get("annotations") or {}) for pod in found)

    await eventually(noted, "the notes")
    name, uid = (after[0]["metadata"][key] for key in ("name", "uid"))
    pending = {"type": "PodResizePending", "status": "True", "reason": "Infeasible"}
    ready = {"type": "Ready", "status": "True"}
    patch = {"status": {"conditions": [ready, pending]}}
    await site.client.patch(PODS, name, patch, NS, subresource="status")
    await site.pods(lambda pods: len(pods) == 2 and uid not in uids(pods), "another pod in its place")


async def test_a_class_that_would_change_needs_another_pod(site: Site) -> None:
    """Without requests a pod is BestEffort; a resize may not make it Burstable."""
    await site.client.create(web(2))
    before = await site.pods(lambda pods: len(pods) == 2, "2 pods")
    site.metrics.cores = 1.0
    await site.vpa(mode="InPlaceOrRecreate")
    after = await site.pods(lambda pods: len(pods) == 2 and all(request(pod) > 1 for pod in pods), "new pods")
    assert not uids(before) & uids(after)


async def test_budgets_hold(site: Site) -> None:
    before = await deploy(site)
    spec = {"minAvailable": 2, "selector": {"matchLabels": before[0]["metadata"]["labels"]}}
    budget = {"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "b", "namespace": NS}}
    await site.client.create({**budget, "spec": spec})

    async def counted() -> bool:
        found = await site.client.get(policy_v1.PodDisruptionBudget, "b", NS)
        return found.status is not None and found.status.currentHealthy == 2

    await eventually(counted, "the budget")
    site.metrics.cores = 1.0
    await site.vpa()

    async def refused() -> bool:
        found = site.autoscaler.explain(NS, "web")
        return found is not None and "refused" in str(found) and "disruption budget" in str(found)

    await eventually(refused, "a refusal")
    assert uids(await site.pods(lambda pods: len(pods) == 2, "2 pods")) == uids(before)


async def test_modes_that_leave_running_pods_alone(site: Site) -> None:
    before = await deploy(site)
    site.metrics.cores = 1.0
    await site.vpa(mode="Initial", updatePolicy={"updateMode": "Initial"})
    await site.status(lambda found: "main" in found, "a recommendation")
    await site.turns()
    assert uids(await site.pods(lambda pods: len(pods) == 2, "2 pods")) == uids(before)
    await site.client.delete(PODS, before[0]["metadata"]["name"], NS)
    after = await site.pods(lambda pods: len(pods) == 2 and uids(pods) != uids(before), "a new pod")
    assert sorted(request(pod) > 1 for pod in after) == [False, True]
    await site.client.patch(VPAS, "web", {"spec": {"updatePolicy": {"updateMode": "Off"}}}, NS)
    await eventually(lambda: _mode(site, "Off"), "the cache")
    await site.client.delete(PODS, after[0]["metadata"]["name"], NS)
    await site.client.delete(PODS, after[1]["metadata"]["name"], NS)
    last = await site.pods(lambda pods: len(pods) == 2 and not uids(pods) & uids(after), "new pods")
    assert [request(pod) for pod in last] == [0.1, 0.1]
    assert not any("vpaObservedContainers" in (pod["metadata"].get("annotations") or {}) for pod in last)


async def _mode(site: Site, mode: str) -> bool:
    return [vpa.mode for vpa in site.autoscaler.world.all_vpas()] == [mode]


async def test_too_few_replicas_are_left(site: Site) -> None:
    before = await deploy(site, 1)
    site.metrics.cores = 1.0
    await site.vpa()

    async def left() -> bool:
        return "fewer than the 2 of minReplicas" in str(site.autoscaler.explain(NS, "web"))

    await eventually(left, "an outcome")
    assert uids(await site.pods(lambda pods: len(pods) == 1, "the pod")) == uids(before)
    patch = {"spec": {"updatePolicy": {"minReplicas": 1}}}
    await site.client.patch(VPAS, "web", patch, NS)
    await site.pods(lambda pods: len(pods) == 1 and request(pods[0]) > 1, "the pod anew")


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ({"apiVersion": "apps/v1", "kind": "Deployment", "name": "gone"}, "Cannot read targetRef. Reason: Deployment default/gone does not exist"),
        ({"apiVersion": "v1", "kind": "Node", "name": "n1"}, "Unhandled targetRef v1 / Node / n1, last error"),
        ({"kind": "Nothing", "name": "x"}, "Unhandled targetRef  / Nothing / x, last error no matches for kind"),
    ],
)  # fmt: skip
async def test_unsupported_targets(site: Site, reference: Obj, message: str) -> None:
    await site.vpa(targetRef=reference)
    status = await site.status(lambda found: "ConfigUnsupported" in found, "the condition")
    assert status["ConfigUnsupported"]["message"].startswith(message)
    assert status["NoPodsMatched"]["message"] == "No pods match this VPA object"
    assert status["RecommendationProvided"] | {"lastTransitionTime": ""} == {
        "type": "RecommendationProvided",
        "status": "False",
        "reason": "NoPodsMatched",
        "message": "No pods match this VPA object",
        "lastTransitionTime": "",
    }


async def test_a_target_with_a_parent_is_none(site: Site) -> None:
    pods = await deploy(site)
    owner = pods[0]["metadata"]["ownerReferences"][0]["name"]
    await site.vpa(targetRef={"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": owner})
    status = await site.status(lambda found: "ConfigUnsupported" in found, "the condition")
    assert "topmost well-known or scalable controller" in status["ConfigUnsupported"]["message"]


POD: Obj = {"metadata": {"labels": {"app": "x"}}, "spec": {"containers": [{"name": "main", "image": "i"}]}}
JOB: Obj = {"metadata": {"labels": {"app": "x"}}, "spec": {**POD["spec"], "restartPolicy": "Never"}}
MATCH: Obj = {"selector": {"matchLabels": {"app": "x"}}}


@pytest.mark.parametrize(
    ("version", "kind", "spec"),
    [
        pytest.param("apps/v1", "StatefulSet", {**MATCH, "serviceName": "x", "template": POD}, id="StatefulSet"),
        pytest.param("apps/v1", "DaemonSet", {**MATCH, "template": POD}, id="DaemonSet"),
        pytest.param("apps/v1", "ReplicaSet", {**MATCH, "template": POD}, id="ReplicaSet"),
        pytest.param("v1", "ReplicationController", {"selector": {"app": "x"}, "template": POD}, id="ReplicationController"),
        pytest.param("batch/v1", "Job", {"template": JOB}, id="Job"),
        pytest.param("batch/v1", "CronJob", {"schedule": "0 0 1 1 *", "jobTemplate": {"spec": {"template": JOB}}}, id="CronJob"),
        pytest.param("example.org/v1", "Fleet", {"replicas": 1}, id="custom"),
    ],
)  # fmt: skip
async def test_targets(site: Site, version: str, kind: str, spec: Obj) -> None:
    body: Obj = {"apiVersion": version, "kind": kind, "metadata": {"name": "x", "namespace": NS}, "spec": spec}
    if kind == "Fleet":
        await _fleets(site, body)
    else:
        await site.client.create(body)
    if kind in ("CronJob", "Fleet"):  # whose pods somebody else makes, or nobody before January
        await site.client.create(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                **POD,
                "metadata": {"name": "x", "namespace": NS, "labels": {"app": "x"}},
            }
        )
    site.metrics.cores = 1.0
    await site.vpa(mode="Off", targetRef={"apiVersion": version, "kind": kind, "name": "x"})
    status = await site.status(lambda found: "main" in found, "a recommendation")
    assert "ConfigUnsupported" not in status and "NoPodsMatched" not in status


async def _fleets(site: Site, fleet: Obj) -> None:
    """A kind of somebody else's with a scale subresource, and one object of it."""
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    paths = {
        "specReplicasPath": ".spec.replicas",
        "statusReplicasPath": ".status.replicas",
        "labelSelectorPath": ".status.selector",
    }
    version = {
        "name": "v1",
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": schema},
        "subresources": {"scale": paths, "status": {}},
    }
    names = {"kind": "Fleet", "plural": "fleets", "singular": "fleet"}
    await site.client.create(
        {
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": {"name": "fleets.example.org"},
            "spec": {"group": "example.org", "scope": "Namespaced", "names": names, "versions": [version]},
        }
    )
    fleets = Resource("example.org", "v1", "fleets", "Fleet")

    async def made() -> bool:
        await site.client.create(fleet, resource=fleets)
        return True

    await eventually(made, "the kind")
    status = {"status": {"replicas": 1, "selector": "app=x"}}
    await site.client.patch(fleets, "x", status, NS, subresource="status")


async def test_a_horizontal_autoscaler_keeps_its_resource(site: Site) -> None:
    await deploy(site)
    hpa = autoscaling_v2.HorizontalPodAutoscaler
    metric = {
        "type": "Resource",
        "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}},
    }
    reference = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}
    await site.client.create(
        {
            "apiVersion": "autoscaling/v2",
            "kind": "HorizontalPodAutoscaler",
            "metadata": {"name": "web", "namespace": NS},
            "spec": {"scaleTargetRef": reference, "minReplicas": 2, "maxReplicas": 2, "metrics": [metric]},
        }
    )
    site.metrics.cores = 1.0
    await site.vpa()
    status = await site.status(lambda found: "ConfigUnsupported" in found and "main" in found, "the condition")
    assert "cpu by HorizontalPodAutoscaler web" in status["ConfigUnsupported"]["message"]
    after = await site.pods(
        lambda pods: len(pods) == 2 and all(request(pod, "memory") > 0 for pod in pods), "memory requests"
    )
    assert [request(pod) for pod in after] == [0.1, 0.1]
    (event,) = await site.told("ConflictingVerticalPodAutoscaler")
    assert (event["type"], event["involvedObject"]["kind"]) == ("Warning", "HorizontalPodAutoscaler")
    await site.client.delete(hpa, "web", NS)
    await site.status(lambda found: "ConfigUnsupported" not in found, "no condition")


async def test_a_kill_for_lack_of_memory_raises_the_target(site: Site) -> None:
    (pod, _) = await deploy(site, memory="1Gi")
    site.metrics.cores = 0.1
    await site.vpa(mode="Off")
    before = await site.status(lambda found: "main" in found, "a recommendation")
    assert quantity.parse(before["main"]["target"]["memory"]) < 400 * MI
    now = site.clock.now()
    ended = {"exitCode": 137, "reason": "OOMKilled", "startedAt": now, "finishedAt": now}
    status = {
        "name": "main",
        "image": "i",
        "imageID": "",
        "ready": True,
        "restartCount": 1,
        "lastState": {"terminated": ended},
    }
    patch = {"status": {"containerStatuses": [status]}}
    await site.client.patch(PODS, pod["metadata"]["name"], patch, NS, subresource="status")
    await site.status(lambda found: quantity.parse(found["main"]["target"]["memory"]) > 1200 * MI, "a raise")


async def test_an_eviction_for_lack_of_memory_raises_the_target(site: Site) -> None:
    (pod, _) = await deploy(site, memory="64Mi")
    site.metrics.cores = 0.1
    await site.vpa(mode="Off")
    await site.status(lambda found: "main" in found, "a recommendation")
    place = {"kind": "Pod", "apiVersion": "v1", "name": pod["metadata"]["name"], "namespace": NS}
    notes = {
        "starved_resource": "memory",
        "offending_containers": "main,odd",
        "offending_containers_usage": "2Gi,nonsense",
    }
    event = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": "e", "namespace": NS, "annotations": notes},
        "involvedObject": place,
        "reason": "Evicted",
        "message": "The node was low on resource: memory.",
        "type": "Warning",
    }
    await site.client.create(event)
    await site.status(lambda found: quantity.parse(found["main"]["target"]["memory"]) > 2400 * MI, "a raise")


async def test_memory_survives_a_restart_and_goes_with_the_autoscaler(cluster: Cluster) -> None:
    clock = RealClock(SCALE)
    metrics = Metrics(cluster.client, clock, cores=1.0)
    async with running(cluster, metrics, clock) as site:
        await deploy(site)
        await site.vpa(mode="Off")

        async def saved() -> bool:
            found = await site.client.get(CHECKPOINTS, "web-main", NS)
            assert found["spec"] == {"vpaObjectName": "web", "containerName": "main"}
            return bool(found["status"]["totalSamplesCount"] >= 6)

        await eventually(saved, "a checkpoint")
    metrics.cores = None
    again = RealClock(SCALE)
    async with running(cluster, metrics, again) as site:
        model = site.autoscaler.recommender.models[next(iter(site.autoscaler.recommender.models))]
        assert model.aggregates["main"].samples >= 6
        assert model.aggregates["main"].cpu.percentile(0.9) == pytest.approx(1.0, rel=0.06)
        status = await site.status(lambda found: found["RecommendationProvided"]["status"] == "True", "what was known")
        assert status["main"]
        await site.client.delete(VPAS, "web", NS)

        async def gone() -> bool:
            return not (await site.client.list(CHECKPOINTS, NS)).items

        await eventually(gone, "no checkpoints")


async def test_without_metrics_it_says_so(site: Site) -> None:
    await deploy(site)
    await site.vpa()
    status = await site.status(lambda found: "FetchingHistory" in found, "the condition")
    assert status["RecommendationProvided"]["status"] == "False"
    site.metrics.extra.append({"metadata": {"name": "ghost"}, "timestamp": "never", "containers": None})
    site.metrics.cores = 0.5
    await site.status(lambda found: "FetchingHistory" not in found and "main" in found, "a recommendation")


async def test_wrong_autoscalers_are_refused(site: Site) -> None:
    with pytest.raises(StatusError, match="minReplicas has to be positive"):
        await site.vpa(updatePolicy={"updateMode": "Auto", "minReplicas": 0})
    with pytest.raises(Invalid, match="updateMode"):
        await site.vpa(mode="Sometimes")


async def test_the_webhook_registers_itself_again(site: Site) -> None:
    await site.client.delete(CONFIGURATIONS, NAME)

    async def back() -> bool:
        found = await site.client.get(admissionregistration_v1.MutatingWebhookConfiguration, NAME)
        return bool(found.webhooks and found.webhooks[0].failurePolicy == "Ignore")

    await eventually(back, "the configuration")


@pytest.mark.parametrize(
    ("head", "body", "code"),
    [
        ("POST", b"nonsense", 400),
        ("POST", b'{"request": 3}', 400),
        ("POST", b'{"request": {"uid": "u", "resource": {"group": "", "resource": "pods"}, "object": {"metadata": 3}}}', 400),
        ("GET", b"", 405),
        ("POST", b"x" * (9 << 20), 413),
    ],
)  # fmt: skip
async def test_bad_reviews(site: Site, head: str, body: bytes, code: int) -> None:
    context = ssl.create_default_context(cafile=str(shared_pki().ca))
    reader, writer = await asyncio.open_connection("127.0.0.1", site.door.port, ssl=context)
    writer.write(f"{head} / HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body)
    await writer.drain()
    assert int((await reader.readline()).split()[1]) == code
    writer.close()
