"""DefaultBinder: writes the decision through the pod's `binding` subresource."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from scheduler.framework.events import Registration
from scheduler.framework.pod_info import PodInfo

CreateBinding = Callable[[PodInfo, dict[str, Any]], Awaitable[object]]


class DefaultBinder:
    """Bind. The uid in the binding makes it fail when the pod was replaced by another of its name."""

    name = "DefaultBinder"

    def __init__(self, create: CreateBinding) -> None:
        self.create = create

    def registrations(self) -> Sequence[Registration]:
        return ()

    async def bind(self, pod: PodInfo, node: str) -> None:
        # A plain object, because the answer is not a Binding but a Status.
        await self.create(
            pod,
            {
                "apiVersion": "v1",
                "kind": "Binding",
                "metadata": {"namespace": pod.namespace, "name": pod.name, "uid": pod.uid},
                "target": {"kind": "Node", "name": node},
            },
        )
