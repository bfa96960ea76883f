"""The status ConfigMap: cluster-autoscaler's own YAML form. Pure but for when each state began."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

import yaml

from cluster_autoscaler.cloud_view import CloudView
from cluster_autoscaler.registry import ClusterStateRegistry, Counts
from machinery.clock import Clock
from machinery.meta import rfc3339

LAST_UPDATED: Final = "cluster-autoscaler.kubernetes.io/last-updated"


def _go_time(moment: datetime) -> str:
    """As Go prints an instant: what upstream's `time` member and annotation are."""
    return moment.strftime("%Y-%m-%d %H:%M:%S.%f") + " +0000 UTC"


class StatusWriter:
    """Makes the document; remembers since when each state has lasted."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._since: dict[tuple[str, str], tuple[str, str]] = {}

    def _state(self, who: str, what: str, status: str, **more: Any) -> dict[str, Any]:
        now = rfc3339(self._clock.now())
        known = self._since.get((who, what))
        if known is None or known[0] != status:
            known = self._since[(who, what)] = (status, now)
        return {"status": status, **more, "lastProbeTime": now, "lastTransitionTime": known[1]}

    def document(
        self, now: float, view: CloudView, registry: ClusterStateRegistry, candidates: dict[str, str]
    ) -> dict[str, Any]:
        """The ConfigMap's `status`, unserialized. `candidates`: unneeded nodes with their groups."""
        growing = [name for name in registry.requests if name in view.groups]
        groups = [self._group(now, name, view, registry, candidates) for name in sorted(view.groups)]
        return {
            "time": _go_time(self._clock.now()),
            "autoscalerStatus": "Running",
            "clusterWide": {
                "health": self._state(
                    "", "health", "Healthy" if registry.healthy else "Unhealthy", nodeCounts=_counts(registry.total)
                ),
                "scaleUp": self._state("", "scaleUp", "InProgress" if growing else "NoActivity"),
                "scaleDown": self._scale_down("", len(candidates)),
            },
            "nodeGroups": groups,
        }

    def _scale_down(self, who: str, count: int) -> dict[str, Any]:
        if not count:
            return self._state(who, "scaleDown", "NoCandidates")
        return self._state(who, "scaleDown", "CandidatesPresent", candidates=count)

    def _group(
        self, now: float, name: str, view: CloudView, registry: ClusterStateRegistry, candidates: dict[str, str]
    ) -> dict[str, Any]:
        group = view.groups[name]
        counts = registry.counts.get(name, Counts())
        backoff = registry.backoff_of(now, name)
        if backoff is not None:
            info = {"errorCode": backoff.code, "errorMessage": backoff.message}
            raising = self._state(name, "scaleUp", "Backoff", backoffInfo=info)
        else:
            raising = self._state(name, "scaleUp", "InProgress" if name in registry.requests else "NoActivity")
        return {
            "name": name,
            "health": self._state(
                name,
                "health",
                "Healthy" if registry.group_healthy(name) else "Unhealthy",
                nodeCounts=_counts(counts),
                cloudProviderTarget=group.target,
                minSize=group.group.min_size,
                maxSize=group.group.max_size,
            ),
            "scaleUp": raising,
            "scaleDown": self._scale_down(name, sum(owner == name for owner in candidates.values())),
        }


def _counts(counts: Counts) -> dict[str, Any]:
    return {
        "registered": {
            "total": counts.registered,
            "ready": counts.ready,
            "notStarted": counts.not_started,
            "beingDeleted": counts.being_deleted,
            "unready": {"total": counts.unready, "resourceUnready": 0},
        },
        "longUnregistered": counts.long_unregistered,
        "unregistered": counts.unregistered,
    }


def config_map(namespace: str, name: str, document: dict[str, Any], moment: datetime) -> dict[str, Any]:
    """The whole object, as applied."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": namespace, "annotations": {LAST_UPDATED: _go_time(moment)}},
        "data": {"status": yaml.safe_dump(document, sort_keys=False)},
    }
