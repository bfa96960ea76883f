"""The autoscaling story: load, replicas, a machine, and back again. Each step is waited for and told with evidence.

Owns the order of the steps and what each of them has to show. Everything it sees is read from the API, the metrics API
and the cloud; it changes nothing but its own objects and the load.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Protocol

from cli.demo import workload
from cli.demo.load import Load, ask
from cli.demo.timeline import Look, Timeline
from cli.demo.workload import APP, LEAST, PATH, PORT, Size
from cli.output import duration
from machinery import quantity
from proto.cloud.v1 import cloud_pb2 as pb

Obj = dict[str, Any]
CLIENTS, PAUSE = 2, 0.01  # two clients that pause as long as an answer takes: most of one core, however fast it is
PATIENCE: Final = 60.0  # real seconds for what real processes do
CANDIDATE: Final = "DeletionCandidateOfClusterAutoscaler"
LEAVING: Final = "ToBeDeletedByClusterAutoscaler"


class View(Protocol):
    """What the story reads and makes; see `cli.demo.api.ClusterView`."""

    def get(self, path: str, **query: str) -> Obj | None: ...
    def items(self, path: str, **query: str) -> list[Obj]: ...
    def create(self, path: str, obj: Obj) -> None: ...
    def nodes(self) -> list[Obj]: ...
    def events(self, namespace: str, reason: str) -> list[Obj]: ...
    def instances(self) -> dict[str, pb.Instance]: ...
    def bill(self) -> pb.Bill: ...


class AutoscalingStory:
    """One telling. `scale`: how much faster the cluster's timers run. `end` must be called, however it went."""

    def __init__(self, view: View, timeline: Timeline, namespace: str, scale: float) -> None:
        self._view = view
        self._timeline = timeline
        self._namespace = namespace
        self._scale = scale
        self._core = f"/api/v1/namespaces/{namespace}"
        self._load: Load | None = None
        self._leaving: tuple[str, str] = ("", "")

    def end(self) -> None:
        """No more load."""
        if self._load is not None:
            self._load.stop()

    def tell(self) -> None:
        """From the first pod to the last machine. Raises NotSeen, CommandError and OSError."""
        before = set(self._view.instances())
        wanted = self._deploy()
        self._raise(wanted)
        self._grow(wanted, before)
        self._lower(wanted)
        self._shrink()

    # ---- up ----

    def _deploy(self) -> Size:
        wanted = workload.size(self._view.nodes(), self._view.items("/api/v1/pods"))
        self._timeline.note(
            "cluster",
            f"{len(self._view.nodes())} nodes have room for {wanted.free} pods of {wanted.request}m; "
            f"the autoscaler may make {wanted.most}, aiming at {wanted.percent}% ({wanted.target}m) each",
        )
        self._view.create("/api/v1/namespaces", workload.namespace(self._namespace))
        apps, autoscaling = "/apis/apps/v1", "/apis/autoscaling/v2"
        here = f"namespaces/{self._namespace}"
        self._view.create(f"{apps}/{here}/deployments", workload.deployment(wanted))
        self._view.create(f"{self._core}/services", workload.service())
        self._view.create(f"{autoscaling}/{here}/horizontalpodautoscalers", workload.autoscaler(wanted))
        self._wait("pods run", f"{LEAST} Ready pods", lambda: self._ready(LEAST))
        host = (self._view.get(f"{self._core}/services/{APP}") or {})["spec"]["clusterIP"]
        self._load = Load(lambda: ask(host, PORT, PATH), CLIENTS, PAUSE)
        self._wait("Service answers", f"an answer from http://{host}{PATH}", lambda: self._answer(host))
        self._wait("metrics come", "the autoscaler's first look at CPU", self._measured, 180)
        return wanted

    def _raise(self, wanted: Size) -> None:
        assert self._load is not None
        self._load.start()
        self._timeline.note("load begins", f"{CLIENTS} clients, one request after the other through the Service")
        self._wait("CPU rises", f"more than {wanted.target}m a pod", lambda: self._busy(wanted), 60)
        self._wait("HPA raises replicas", "event SuccessfulRescale", self._raised, 120)
        self._wait("pods are Pending", "event FailedScheduling", self._pending, 60)

    def _grow(self, wanted: Size, before: set[str]) -> None:
        self._wait("autoscaler asks", "event TriggeredScaleUp on a pod", self._triggered, 60)
        self._wait("machine is ordered", "a new machine in the cloud", lambda: self._machine(before), 60)
        self._wait("machine runs", "the new machine running", lambda: self._machine(before, "running"), 120)
        self._wait("node joins", "a Node of the new machine", lambda: self._joined(before), 60)
        self._wait("node is Ready", "the new Node Ready", lambda: self._joined(before, ready=True), 120)
        self._wait("all pods run", f"{wanted.most} Ready pods", lambda: self._ready(wanted.most), 60)
        self._wait("load spreads", f"answers from {wanted.most} pods", lambda: self._spread(wanted), 120)

    # ---- down ----

    def _lower(self, wanted: Size) -> None:
        assert self._load is not None
        self._load.stop()
        told = f"{self._load.answered} answers, {self._load.failed} failures; at last {self._load.rates()}"
        self._timeline.note("load ends", told)
        self._wait("HPA lowers replicas", f"event SuccessfulRescale, {LEAST} replicas", self._lowered, 900)

    def _shrink(self) -> None:
        self._wait("node is unneeded", f"taint {CANDIDATE} on a node", lambda: self._tainted(CANDIDATE, LEAVING), 900)
        self._wait("node is given up", f"taint {LEAVING} on a node", lambda: self._tainted(LEAVING), 2400)
        self._wait("node is drained", f"no pod of ours on {self._leaving[0]}", self._drained, 300)
        self._wait("node is gone", f"no Node {self._leaving[0]}", self._node_gone, 300)
        self._wait("machine is removed", f"no machine of {self._leaving[0]}", self._machine_gone, 300)
        self._wait("pods still run", f"{LEAST} Ready pods", lambda: self._ready(LEAST, exactly=True), 60)

    def _wait(self, what: str, expected: str, look: Callable[[], Look], cluster_seconds: float = 0.0) -> None:
        self._timeline.wait(what, expected, look, PATIENCE + cluster_seconds / self._scale)

    # ---- looks ----

    def _spread(self, wanted: Size) -> Look:
        assert self._load is not None
        rates = self._load.rates()
        return Look(str(rates)) if rates.pods >= wanted.most else Look(seen=str(rates))

    def _drained(self) -> Look:
        pods = {pod["metadata"]["name"]: pod["spec"].get("nodeName") or "no node" for pod in self._pods()}
        told = ", ".join(f"{name} on {node}" for name, node in sorted(pods.items()))
        return Look(seen=told) if self._leaving[0] in pods.values() else Look(f"pods are {told}")

    def _pods(self) -> list[Obj]:
        return self._view.items(f"{self._core}/pods", labelSelector=f"app={APP}")

    def _ready(self, count: int, exactly: bool = False) -> Look:
        pods = self._pods()
        ready = [pod for pod in pods if _condition(pod, "Ready") == "True" and _stays(pod)]
        names = sorted({pod["spec"]["nodeName"] for pod in ready})
        told = f"{len(ready)} of {len(pods)} pods Ready on {', '.join(names) or 'no node'}"
        if self._load is not None and self._load.answered:
            told += f"; {self._load.answered} answers so far"
        done = len(ready) == len(pods) == count if exactly else len(ready) >= count
        return Look(told) if done else Look(seen=told)

    def _answer(self, host: str) -> Look:
        began = self._timeline.seconds()
        pod = ask(host, PORT, PATH)
        return Look(f"{pod} answers at http://{host}{PATH} in {(self._timeline.seconds() - began) * 1000:.0f} ms")

    def _hpa(self) -> Obj:
        return self._view.get(f"/apis/autoscaling/v2/namespaces/{self._namespace}/horizontalpodautoscalers/{APP}") or {}

    def _measured(self) -> Look:
        hpa = self._hpa()
        used = _utilization(hpa)
        if used is None:
            told = [f"{each['type']}={each['status']}: {each.get('message')}" for each in _conditions(hpa)]
            return Look(seen="; ".join(told))
        return Look(f"HorizontalPodAutoscaler {APP}: cpu {used}% of {_aim(hpa)}%")

    def _usage(self) -> list[int]:
        """Millicores of each pod, as the metrics API tells them: its numbers are the containers' cgroups'."""
        found = self._view.items(f"/apis/metrics.k8s.io/v1beta1/namespaces/{self._namespace}/pods")
        return [sum(quantity.milli(each["usage"]["cpu"]) for each in pod["containers"]) for pod in found]

    def _busy(self, wanted: Size) -> Look:
        used = self._usage()
        mean = sum(used) // len(used) if used else 0
        told = f"PodMetrics: {' + '.join(f'{each}m' for each in used)}, {mean}m a pod, {wanted.target}m wanted"
        return Look(told) if mean > wanted.target else Look(seen=told)

    def _rescaled(self, words: str, wanted: Callable[[int], bool]) -> Look:
        hpa = self._hpa()
        desired = (hpa.get("status") or {}).get("desiredReplicas") or 0
        for event in self._view.events(self._namespace, "SuccessfulRescale"):
            if words in event["message"] and wanted(desired):
                return Look(
                    f"cpu {_utilization(hpa)}% of {_aim(hpa)}%, {desired} replicas wanted; "
                    f"event SuccessfulRescale: {event['message']}"
                )
        told = [f"{each['type']}={each['status']}: {each.get('message')}" for each in _conditions(hpa)]
        return Look(seen=f"cpu {_utilization(hpa)}% of {_aim(hpa)}%, {desired} replicas wanted; {'; '.join(told)}")

    def _raised(self) -> Look:
        return self._rescaled("above target", lambda replicas: replicas > LEAST)

    def _lowered(self) -> Look:
        return self._rescaled(f"New size: {LEAST};", lambda replicas: replicas == LEAST)

    def _pending(self) -> Look:
        waiting = [pod["metadata"]["name"] for pod in self._pods() if _condition(pod, "PodScheduled") == "False"]
        for event in self._view.events(self._namespace, "FailedScheduling"):
            return Look(f"{len(waiting)} pods wait; event FailedScheduling: {event['message']}")
        return Look(seen=f"{len(waiting)} of {len(self._pods())} pods have no node")

    def _triggered(self) -> Look:
        for event in self._view.events(self._namespace, "TriggeredScaleUp"):
            return Look(f"event TriggeredScaleUp: {event['message']}")
        refused = [each["message"] for each in self._view.events(self._namespace, "NotTriggerScaleUp")]
        return Look(seen="; ".join(dict.fromkeys(refused)))

    def _machine(self, before: set[str], state: str = "") -> Look:
        found = [each for name, each in self._view.instances().items() if name not in before]
        for each in found:
            if state in ("", each.state):
                kind = f"{each.type}, {each.zone}, ${each.price_per_hour:.4f} an hour"
                return Look(f"{each.name} ({kind}) is {each.state}")
        return Look(seen=", ".join(f"{each.name} {each.state} {each.message}" for each in found))

    def _joined(self, before: set[str], ready: bool = False) -> Look:
        nodes = [node for node in self._view.nodes() if node["metadata"]["name"] not in before]
        for node in nodes:
            if not ready or _condition(node, "Ready") == "True":
                kubelet = node["status"].get("nodeInfo", {}).get("kubeletVersion", "")
                offered = node["status"].get("allocatable", {})
                told = f"{offered.get('cpu')} CPU, {offered.get('memory')}, kubelet {kubelet}"
                return Look(f"Node {node['metadata']['name']}: Ready={_condition(node, 'Ready') or 'Unknown'}; {told}")
        names = [f"{node['metadata']['name']}: Ready={_condition(node, 'Ready')}" for node in nodes]
        return Look(seen=", ".join(names) or "no new Node")

    def _tainted(self, *keys: str) -> Look:
        nodes = self._view.nodes()
        for node in nodes:
            name = node["metadata"]["name"]
            for taint in (node.get("spec") or {}).get("taints") or ():
                if taint["key"] in keys:
                    self._leaving = name, (node["spec"].get("providerID") or "").rpartition("/")[2] or name
                    told = self._removal(name) if taint["key"] == LEAVING else "little is requested there"
                    return Look(f"Node {name} has taint {taint['key']}:{taint['effect']}; {told}")
        names = sorted(node["metadata"]["name"] for node in nodes)
        if self._leaving[0] and self._leaving[0] not in names:
            return Look(f"Node {self._leaving[0]} is gone already; {self._removal(self._leaving[0])}")
        return Look(seen=f"no such taint on {', '.join(names)}")

    def _removal(self, node: str) -> str:
        """What the cluster autoscaler said of it."""
        for reason in ("ScaleDown", "ScaleDownEmpty"):
            for event in reversed(self._view.events("kube-system", reason)):
                if f'"{node}"' in event["message"]:
                    return f"event {reason}: {event['message']}"
        return "no event yet"

    def _node_gone(self) -> Look:
        names = sorted(node["metadata"]["name"] for node in self._view.nodes())
        left = f"Nodes are {', '.join(names)}"
        return Look(seen=left) if self._leaving[0] in names else Look(left)

    def _machine_gone(self) -> Look:
        found = self._view.instances()
        there = found.get(self._leaving[1])
        if there is not None:
            return Look(seen=f"{there.name} is {there.state} {there.message}")
        bill = self._view.bill()
        spent = f"${bill.total:.4f} for {duration(bill.hours * 3600)} of machines (the cluster's time)"
        ran = f"${bill.hourly:.4f} an hour now, so far {spent}"
        return Look(f"machines are {', '.join(sorted(found))}; {ran}")


def _conditions(obj: Obj) -> list[Obj]:
    return (obj.get("status") or {}).get("conditions") or []


def _condition(obj: Obj, kind: str) -> str:
    return next((str(each["status"]) for each in _conditions(obj) if each["type"] == kind), "")


def _stays(pod: Obj) -> bool:
    return "deletionTimestamp" not in pod["metadata"]


def _utilization(hpa: Obj) -> int | None:
    """Percent of the requests that the autoscaler saw last."""
    for each in (hpa.get("status") or {}).get("currentMetrics") or ():
        found: int | None = each.get("resource", {}).get("current", {}).get("averageUtilization")
        if found is not None:
            return found
    return None


def _aim(hpa: Obj) -> int:
    found: int = hpa["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"]
    return found
