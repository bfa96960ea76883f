"""What can happen in a cluster that may make an unschedulable pod schedulable.

A plugin registers for the events that could turn its own refusal; the queue asks only the plugins that refused a pod.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from scheduler.framework.pod_info import PodInfo


class EventResource(enum.Enum):
    """What changed."""

    NODE = "Node"
    ASSIGNED_POD = "AssignedPod"
    TARGET_POD = "TargetPod"  # the waiting pod itself
    NAMESPACE = "Namespace"
    CLAIM = "PersistentVolumeClaim"
    VOLUME = "PersistentVolume"
    STORAGE_CLASS = "StorageClass"
    CSI_NODE = "CSINode"
    CSI_DRIVER = "CSIDriver"
    CSI_CAPACITY = "CSIStorageCapacity"
    ATTACHMENT = "VolumeAttachment"


class Action(enum.Flag):
    """How it changed; updates are told as finely as possible."""

    ADD = enum.auto()
    DELETE = enum.auto()
    UPDATE_NODE_ALLOCATABLE = enum.auto()
    UPDATE_NODE_LABEL = enum.auto()
    UPDATE_NODE_TAINT = enum.auto()  # taints and the unschedulable flag
    UPDATE_POD_LABEL = enum.auto()
    UPDATE_POD_SCALE_DOWN = enum.auto()
    UPDATE_POD_TOLERATION = enum.auto()
    UPDATE_POD_GATES = enum.auto()
    UPDATE_OTHER = enum.auto()
    UPDATE = enum.auto()  # of kinds whose updates are not told apart


@dataclass(frozen=True, slots=True)
class ClusterEvent:
    """One event. `old` and `new` are PodInfo for pods and API objects for other kinds; either may be missing."""

    resource: EventResource
    action: Action
    old: Any = None
    new: Any = None


Hint = Callable[[PodInfo, Any, Any], bool]
"""(waiting pod, old, new) -> whether the event may help. Depends on the pod's signature only, not on its name."""


@dataclass(frozen=True, slots=True)
class Registration:
    """A plugin's wish to hear of an event; without a hint every such event may help."""

    resource: EventResource
    actions: Action
    hint: Hint | None = None

    def may_help(self, pod: PodInfo, event: ClusterEvent) -> bool:
        if event.resource is not self.resource or not event.action & self.actions:
            return False
        return self.hint is None or self.hint(pod, event.old, event.new)
