"""DefaultBinder: writes the decision through the pod's `binding` subresource."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from api.models import core_v1, meta_v1
from scheduler.framework.events import Registration
from scheduler.framework.pod_info import PodInfo

CreateBinding = Callable[[core_v1.Binding], Awaitable[object]]


class DefaultBinder:
    """Bind. The uid in the binding makes it fail when the pod was replaced by another of its name."""

    name = "DefaultBinder"

    def __init__(self, create: CreateBinding) -> None:
        self._create = create

    def registrations(self) -> Sequence[Registration]:
        return ()

    async def bind(self, pod: PodInfo, node: str) -> None:
        metadata = pod.pod.metadata
        await self._create(
            core_v1.Binding(
                target=core_v1.ObjectReference(kind="Node", name=node),
                metadata=meta_v1.ObjectMeta(
                    namespace=pod.namespace, name=pod.name, uid=metadata.uid if metadata is not None else None
                ),
            )
        )
