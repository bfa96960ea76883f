"""Which pods belong together: the selectors of Services and of the workloads that own pods.

Default spreading uses them: a pod without constraints of its own is spread among the pods that its Services, its
ReplicaSet, StatefulSet or ReplicationController select. Owned by `ClusterSnapshot`; written by event handlers.
"""

from __future__ import annotations

from collections.abc import Mapping

from machinery.selectors import LabelSelector, Requirement
from scheduler.framework.pod_info import PodInfo

REPLICATION_CONTROLLER = "ReplicationController"
Labels = Mapping[str, str]
OwnerKey = tuple[str, str, str]  # (kind, namespace, name)


class Workloads:
    """Selectors by namespace and by owner."""

    def __init__(self) -> None:
        self._services: dict[str, dict[str, Labels]] = {}
        self._owners: dict[OwnerKey, LabelSelector] = {}

    def set_service(self, namespace: str, name: str, selector: Labels | None) -> bool:
        """Take over a Service's selector (none: it is gone or selects nothing); whether that changed anything."""
        here = self._services.setdefault(namespace, {})
        changed = here.get(name) != (selector or None)
        if selector:
            here[name] = selector
        else:
            here.pop(name, None)
            if not here:
                del self._services[namespace]
        return changed

    def set_owner(self, key: OwnerKey, selector: LabelSelector | None) -> bool:
        """The same for a workload that owns pods."""
        changed = self._owners.get(key) != selector
        if selector is not None:
            self._owners[key] = selector
        else:
            self._owners.pop(key, None)
        return changed

    def selector(self, pod: PodInfo) -> LabelSelector | None:
        """The pods among which this one is to be spread; None when nothing says so."""
        equal: dict[str, str] = {}
        for labels in self._services.get(pod.namespace, {}).values():
            if all(pod.labels.get(key) == value for key, value in labels.items()):
                equal.update(labels)
        more: tuple[Requirement, ...] = ()
        owned = self._owners.get((pod.owner[0], pod.namespace, pod.owner[1]))
        if owned is not None:
            if pod.owner[0] == REPLICATION_CONTROLLER:
                for each in owned.requirements:
                    equal[each.key] = next(iter(each.values))
            else:
                more = owned.requirements
        made = LabelSelector((*LabelSelector.from_labels(equal).requirements, *more))
        return None if made.empty else made
