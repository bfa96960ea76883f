"""The cluster as the autoscaler sees it: informers into a snapshot, and what a decision reads besides.

Owns the snapshot and keeps it true; pods that have ended take no part. Never writes.
"""
# mypy: disable-error-code="union-attr"

from __future__ import annotations

from typing import Any, Final

from api.models import apps_v1, batch_v1, core_v1
from client.informer import EventHandler, Informer, Informers
from cluster_autoscaler import node_facts as facts
from machinery.meta import ObjectKey
from scheduler.framework.pod_info import PodInfo, is_assigned, is_terminal
from scheduler.framework.snapshot import ClusterSnapshot
from scheduler.relations import Relations

PODS: Final = "status.phase!=Succeeded,status.phase!=Failed"
_KINDS: Final[dict[str, Any]] = {
    "ReplicationController": core_v1.ReplicationController,
    "ReplicaSet": apps_v1.ReplicaSet,
    "StatefulSet": apps_v1.StatefulSet,
    "Job": batch_v1.Job,
}


class Cluster:
    """Everything read from the API server."""

    def __init__(self, informers: Informers) -> None:
        self.snapshot = ClusterSnapshot()
        self.pods: Informer[core_v1.Pod] = informers.informer(core_v1.Pod, field_selector=PODS)
        self.pods.add_handler(EventHandler(self._set_pod, lambda _, new: self._set_pod(new), self._pod_deleted))
        self.nodes: Informer[core_v1.Node] = informers.informer(core_v1.Node)
        self.nodes.add_handler(
            EventHandler(self.snapshot.set_node, lambda _, new: self.snapshot.set_node(new), self._node_deleted)
        )
        self.daemons: Informer[apps_v1.DaemonSet] = informers.informer(apps_v1.DaemonSet)
        self.relations = Relations(informers, self.snapshot, lambda event: None)
        self._owners: dict[str, Informer[Any]] = {kind: informers.informer(model) for kind, model in _KINDS.items()}

    def informers(self) -> list[Informer[Any]]:
        """Those that must be complete before the first decision."""
        return [self.pods, self.nodes, self.daemons, *self.relations.informers(), *self._owners.values()]

    def node_list(self) -> list[core_v1.Node]:
        return sorted(self.nodes.lister.list(), key=facts.name)

    def exists(self, kind: str, namespace: str, name: str) -> bool | None:
        """Whether a controller is there; None for kinds that nobody looks after."""
        informer = self._owners.get(kind)
        return None if informer is None else informer.lister.get(ObjectKey(namespace, name)) is not None

    def _set_pod(self, pod: core_v1.Pod) -> None:
        if is_terminal(pod) or not is_assigned(pod):
            self.snapshot.remove_pod(PodInfo.uid_of(pod))
            return
        info = PodInfo(pod)
        self.snapshot.add_pod(info, info.node_name)

    def _pod_deleted(self, pod: core_v1.Pod) -> None:
        self.snapshot.remove_pod(PodInfo.uid_of(pod))

    def _node_deleted(self, node: core_v1.Node) -> None:
        self.snapshot.remove_node(facts.name(node))
