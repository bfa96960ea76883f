"""Objects that can never be satisfied, at least one for every controller: requests to the API server stay few.

Requests are counted where they leave the process, by the controller that makes them, once the first tries are over.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextvars import ContextVar
from typing import Any

import pytest

from api import resources
from api.models import apps_v1, core_v1
from client.client import Client
from client.controller import Controller
from client.transport import GrpcTransport, Transport
from controller_manager.app import ControllerManager
from controller_manager.environment import Options
from machinery import grpc as machinery_grpc
from machinery.clock import RealClock
from machinery.errors import Invalid, StatusError
from tests.harness.apiserver import running_apiserver
from tests.integration.controller_manager.hollow import Cluster, eventually
from tests.integration.controller_manager.hopeless import NS, obj, selector, template, troubles, workloads

SCALE = 60.0
SETTLE = 3.0
WINDOW = 3.0
"""Real seconds, which are as many cluster minutes."""
PER_MINUTE = 45
"""Requests of one controller for all of its hopeless objects: a try every few seconds for the freshest of them."""
IN_ALL = 120
UNTRIED = "volume-expand"
"""It acts on claims that are bound to volumes of its own drivers only."""
EVENTS = "?"
"""Recorders write outside of any controller's loop."""

Obj = dict[str, Any]
_caller: ContextVar[str] = ContextVar("caller", default="?")


class CountingTransport:
    """Passes requests on and counts them by caller, verb and resource."""

    def __init__(self, inner: Transport) -> None:
        self._inner = inner
        self.calls: Counter[tuple[str, str, str]] = Counter()

    def __getattr__(self, verb: str) -> Any:
        call: Callable[[Any], Awaitable[Any]] = getattr(self._inner, verb)
        if verb in ("watch", "close"):
            return call

        async def counted(request: Any) -> Any:
            self.calls[_caller.get(), verb, request.ref.resource] += 1
            return await call(request)

        return counted


def label(manager: ControllerManager) -> None:
    """Let every request tell which controller made it."""
    for each in manager.running:
        if isinstance(each, Controller):
            each._reconcile = _labelled(each.name, each._reconcile)
        else:
            each.run = _labelled(each.name, each.run)  # type: ignore[method-assign]


def _labelled(name: str, call: Callable[..., Awaitable[Any]]) -> Any:
    async def labelled(*args: Any) -> Any:
        _caller.set(name)
        return await call(*args)

    return labelled


@contextlib.asynccontextmanager
async def counted_cluster() -> AsyncIterator[tuple[Cluster, CountingTransport]]:
    clock = RealClock(SCALE)
    async with running_apiserver() as server:
        transport = CountingTransport(GrpcTransport(machinery_grpc.channel(server.grpc_target, server.admin_tls)))
        counted = Client(transport, field_manager="kube-controller-manager")
        manager = ControllerManager(counted, clock, Options(cluster_cidr="10.244.0.0/24"))
        label(manager)
        client = Client.connect(server.grpc_target, server.admin_tls)
        cluster = Cluster(client, clock, manager)
        task = asyncio.ensure_future(cluster.run())
        try:
            await cluster.add_node("n1")
            yield cluster, transport
        finally:
            assert not task.done(), task.result()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await client.close()
            await counted.close()


async def test_what_can_never_be_causes_few_requests() -> None:
    async with counted_cluster() as (cluster, transport):
        client = cluster.client
        await client.create(obj("Namespace", NS, namespaced=False))
        await eventually(
            lambda: client.get(resources.of(core_v1.ServiceAccount), "default", NS), "the namespace's account"
        )
        for each in troubles():
            await client.create(each)
        for resource, name, namespace in (
            (core_v1.Pod, "bare", NS),
            (core_v1.PersistentVolumeClaim, "no-class", NS),
            (core_v1.Namespace, "stuck", None),
        ):
            await client.delete(resource, name, namespace)
        await asyncio.sleep(SETTLE)
        before = transport.calls.copy()
        await asyncio.sleep(WINDOW)
        spent: Counter[str] = Counter()
        for (caller, _, _), count in (transport.calls - before).items():
            spent[caller] += count
        idle = {
            each.name
            for each in cluster.manager.running
            if isinstance(each, Controller) and not each.metrics.reconciles
        }
        assert idle <= {UNTRIED}, "every controller must have something to despair of"
        names = {each.name for each in cluster.manager.running} | {EVENTS}
        assert spent.keys() <= names, "somebody works outside of the controllers"
        per_minute = {name: count / WINDOW for name, count in spent.items()}
        hot = {name: rate for name, rate in per_minute.items() if rate > PER_MINUTE}
        assert not hot, (hot, (transport.calls - before).most_common(10))
        assert sum(per_minute.values()) <= IN_ALL, per_minute


async def test_what_can_never_be_is_explained() -> None:
    async with counted_cluster() as (cluster, _):
        client = cluster.client
        await client.create(obj("Namespace", NS, namespaced=False))
        await eventually(
            lambda: client.get(resources.of(core_v1.ServiceAccount), "default", NS), "the namespace's account"
        )
        for each in workloads("refused", serviceAccountName="nobody"):
            await client.create(each)
        told = {"Deployment", "ReplicaSet", "DaemonSet", "StatefulSet", "ReplicationController", "Job"}

        async def events() -> bool:
            found = (await client.list(resources.of(core_v1.Event), NS)).items
            failed = [each for each in found if each["reason"] in ("FailedCreate", "ReplicaSetCreateError")]
            assert all("nobody" in each["message"] for each in failed)
            assert {each["involvedObject"]["kind"] for each in failed} >= told - {"Deployment"}
            return True

        await eventually(events, "an event of every controller that says why")
        for model, name in (
            (apps_v1.Deployment, "refused-deployment"),
            (apps_v1.ReplicaSet, "refused-replicaset"),
            (core_v1.ReplicationController, "refused-rc"),
        ):

            async def condition(model: Any = model, name: str = name) -> bool:
                found = await client.get(resources.of(model), name, NS)
                conditions = {each["type"]: each for each in found["status"].get("conditions") or ()}
                return bool("nobody" in conditions["ReplicaFailure"]["message"])

            await eventually(condition, f"a condition of {name} that says why")


@pytest.mark.parametrize(
    ("kind", "api_version", "spec"),
    [
        pytest.param(kind, version, {"replicas": -1, "selector": labels, "template": template("x")}, id=kind)
        for kind, version, labels in (
            ("Deployment", "apps/v1", selector("x")),
            ("ReplicaSet", "apps/v1", selector("x")),
            ("StatefulSet", "apps/v1", selector("x")),
            ("ReplicationController", "v1", {"app": "x"}),
        )
    ],
)
async def test_negative_replicas_are_refused_and_none_is_fine(kind: str, api_version: str, spec: Obj) -> None:
    async with counted_cluster() as (cluster, _):
        client = cluster.client
        await client.create(obj("Namespace", NS, namespaced=False))
        with pytest.raises(Invalid) as refused:
            await client.create(obj(kind, "x", api_version, spec=spec))
        assert "spec.replicas" in str(refused.value)
        made = await client.create(obj(kind, "x", api_version, spec={**spec, "replicas": 0}))

        async def observed() -> bool:
            group = "apps" if "/" in api_version else ""
            resource = resources.by_kind(group, "v1", kind)
            assert resource is not None
            status = (await client.get(resource, "x", NS))["status"]
            return bool(status.get("observedGeneration") == made["metadata"]["generation"])

        await eventually(observed, "the status of a set of nobody")


async def test_pods_that_admission_refuses_cause_few_requests() -> None:
    """A policy refuses every pod of these workloads, as a webhook might."""
    group = "admissionregistration.k8s.io/v1"
    expression = {"expression": f"object.metadata.namespace != '{NS}'", "message": "no pods here"}
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}
    policy = {"matchConstraints": {"resourceRules": [rule]}, "validations": [expression]}
    binding = {"policyName": "none", "validationActions": ["Deny"]}
    async with counted_cluster() as (cluster, transport):
        client = cluster.client
        await client.create(obj("ValidatingAdmissionPolicy", "none", group, namespaced=False, spec=policy))
        await client.create(obj("ValidatingAdmissionPolicyBinding", "none", group, namespaced=False, spec=binding))
        await client.create(obj("Namespace", NS, namespaced=False))
        await eventually(
            lambda: client.get(resources.of(core_v1.ServiceAccount), "default", NS), "the namespace's account"
        )

        async def refuses() -> bool:
            try:
                await client.create(obj("Pod", "probe", spec=template("probe")["spec"]))
            except StatusError as error:
                return "no pods here" in error.message
            await client.delete(core_v1.Pod, "probe", NS, grace_period_seconds=0)
            return False

        await eventually(refuses, "the policy to refuse")
        for each in workloads("refused"):
            await client.create(each)

        async def told() -> bool:
            found = await client.get(resources.of(apps_v1.ReplicaSet), "refused-replicaset", NS)
            conditions = (found.get("status") or {}).get("conditions") or ()
            return any(each["type"] == "ReplicaFailure" and "no pods here" in each["message"] for each in conditions)

        await eventually(told, "the status to say why")
        await asyncio.sleep(SETTLE)
        before = transport.calls.copy()
        await asyncio.sleep(WINDOW)
        spent = sum((transport.calls - before).values()) / WINDOW
        assert spent <= IN_ALL, (transport.calls - before).most_common(10)


async def test_a_thousand_identical_pods_come_and_go() -> None:
    async with counted_cluster() as (cluster, transport):
        client, deployments = cluster.client, resources.of(apps_v1.Deployment)
        made = obj(
            "Deployment",
            "many",
            "apps/v1",
            spec={"replicas": 1000, "selector": selector("m"), "template": template("m")},
        )
        made["metadata"]["namespace"] = "default"
        await eventually(
            lambda: client.get(resources.of(core_v1.ServiceAccount), "default", "default"), "the namespace's account"
        )
        await client.create(made)

        async def ready(count: int) -> bool:
            found = await client.get(deployments, "many", "default")
            return int((found.get("status") or {}).get("readyReplicas") or 0) == count

        await eventually(lambda: ready(1000), "a thousand ready pods", 120)
        creations = transport.calls["replicaset", "create", "pods"]
        assert creations == 1000, "none was made twice"
        await client.patch(deployments, "many", {"spec": {"replicas": 0}}, "default")
        await eventually(lambda: ready(0), "none", 120)
