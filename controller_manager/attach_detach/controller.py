"""The loop over attachable volumes: looks at one volume on all nodes, carries out the plan, tells the pods.

Level-based: all that matters is in Pods, claims, volumes, Nodes and VolumeAttachments, so a restart begins where the
last one ended; only how long something has been waited for is remembered (`patience`).
"""
# mypy: disable-error-code="union-attr"
# Objects from the server carry metadata, spec and status; the models call them optional.

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Final

from api import attachments as names
from api.models import meta_v1, storage_v1
from api.volumes import Volume
from client.controller import DONE, Controller, Result
from client.events import NORMAL, WARNING
from client.informer import EventHandler
from controller_manager.attach_detach.node_status import NodeStatuses
from controller_manager.attach_detach.patience import Patience
from controller_manager.attach_detach.plan import Place, Plan, plan_volume
from controller_manager.attach_detach.view import BY_ATTACHED, View, VolumeAttachment, place_of
from controller_manager.environment import Environment
from machinery import log
from machinery.errors import AlreadyExists, NotFound, StatusError
from machinery.log import kv
from machinery.meta import ObjectKey

COMPONENT: Final = "attachdetach-controller"
WORKERS: Final = 10
_log = log.get(__name__)


class AttachDetachController:
    """Reads caches, writes through the client."""

    def __init__(self, env: Environment) -> None:
        self._client = env.client
        self._clock = env.clock
        self._events = env.recorder(COMPONENT)
        self._view = View(env)
        self._statuses = NodeStatuses(env.client)
        self._patience = Patience()
        self.controller = Controller(
            "attachdetach", self.reconcile, clock=env.clock, informers=self._view.informers, workers=WORKERS
        )
        self._view.feed(self.controller)
        self._view.nodes.add_handler(
            EventHandler(None, None, lambda node: self._statuses.forget(node.metadata.name or ""))
        )

    async def reconcile(self, key: ObjectKey) -> Result:
        name = key.name
        volumes = self._view.volumes_named(name)
        attachments = self._view.attachments_of(volumes)
        places = self._places(name, volumes, attachments)
        exclusive = any(names.one_node_at_a_time(each) for each in volumes)
        plan = plan_volume(places, exclusive=exclusive)
        self._patience.keep(
            name,
            unwanted=[node for node, place in places.items() if not place.pods and place.attachment is not None],
            attaching=plan.pending,
            told={each.node for each in plan.refused},
        )
        waits = [plan.look_again] if plan.look_again is not None else []
        if volumes:
            self._tell_refused(name, volumes[0], plan)
            waits.extend(self._tell_pending(name, volumes[0], places, plan))
        await _each(
            *(partial(self._statuses.retract, node, name) for node in plan.retract),
            *(partial(self._detach, name, attachments[node], ask=ask) for node, ask in plan.detach.items()),
            *(partial(self._report, name, volumes[0], node, places[node]) for node in plan.report),
            *(partial(self._attach, volumes[0], node, places[node]) for node in plan.attach),
        )
        return Result(requeue_after=min(waits)) if waits else DONE

    def _places(
        self, name: str, volumes: list[Volume], attachments: Mapping[str, VolumeAttachment]
    ) -> dict[str, Place]:
        wanted = self._view.wanted(volumes)
        listed = {each.metadata.name or "" for each in self._view.nodes.lister.by_index(BY_ATTACHED, name)}
        now, places = self._clock.monotonic(), {}
        for node in sorted({*wanted, *attachments, *listed}):
            pods, attachment = wanted.get(node, []), attachments.get(node)
            waited = self._patience.unwanted_for(name, node, now, unwanted=not pods and attachment is not None)
            there = self._view.nodes.lister.get(ObjectKey("", node))
            places[node] = place_of(there, name, attachment, pods=pods, unwanted_for=waited)
        return places

    # ---- acts ----

    async def _attach(self, volume: Volume, node: str, place: Place) -> None:
        source = volume.spec.csi
        attachment = VolumeAttachment(
            metadata=meta_v1.ObjectMeta(name=names.attachment_name(source.driver, source.volumeHandle, node)),
            spec=storage_v1.VolumeAttachmentSpec(
                attacher=source.driver,
                nodeName=node,
                source=storage_v1.VolumeAttachmentSource(persistentVolumeName=volume.metadata.name),
            ),
        )
        try:
            await self._client.create(attachment)
        except AlreadyExists:
            return  # the caches will show it
        except StatusError as error:
            self._complain(volume, place, error.message)
            raise
        _log.info("Attaching volume", extra=kv(volume=volume.metadata.name, node=node))

    async def _report(self, name: str, volume: Volume, node: str, place: Place) -> None:
        if await self._statuses.report(node, name):
            text = f'AttachVolume.Attach succeeded for volume "{volume.metadata.name}" '
            for pod in place.pods:
                self._events.event(pod, NORMAL, "SuccessfulAttachVolume", text)

    async def _detach(self, name: str, attachment: VolumeAttachment, *, ask: bool) -> None:
        """Take the word back, ask whether it was too late, then delete. A failure is made good by the next look."""
        node = attachment.spec.nodeName
        in_use = await self._statuses.retract(node, name)
        if ask and in_use:
            return  # the node's next word brings us back
        try:
            await self._client.delete(VolumeAttachment, attachment.metadata.name or "", uid=attachment.metadata.uid)
        except NotFound:
            return
        _log.info("Detaching volume", extra=kv(volume=name, node=node, forced=not ask))

    # ---- words ----

    def _tell_refused(self, name: str, volume: Volume, plan: Plan) -> None:
        for each in plan.refused:
            if self._patience.first_refusal(name, each.node, each.pod.metadata.uid or ""):
                text = f'Multi-Attach error for volume "{volume.metadata.name}" {each.message}'
                self._events.event(each.pod, WARNING, "FailedAttachVolume", text)

    def _tell_pending(self, name: str, volume: Volume, places: Mapping[str, Place], plan: Plan) -> list[float]:
        """Complain of what cannot be attached or takes too long; returns when to look again."""
        now, waits = self._clock.monotonic(), []
        source = volume.spec.csi
        for node in plan.pending:
            said = places[node].attachment
            error = said.error if said is not None else ""
            due, wait = self._patience.complaint(name, node, now, error)
            waits.append(wait)
            if due:
                slow = f"timed out waiting for external-attacher of {source.driver} CSI driver to attach volume"
                self._complain(volume, places[node], error or f"{slow} {source.volumeHandle}")
        return waits

    def _complain(self, volume: Volume, place: Place, why: str) -> None:
        text = f'AttachVolume.Attach failed for volume "{volume.metadata.name}" : {why}'
        for pod in place.pods:
            self._events.event(pod, WARNING, "FailedAttachVolume", text)


async def _each(*works: Callable[[], Awaitable[object]]) -> None:
    """Do all, whatever happens to one of them; then raise the first failure."""
    failure: StatusError | None = None
    for work in works:
        try:
            await work()
        except StatusError as error:
            failure = failure or error
    if failure is not None:
        raise failure


def build(env: Environment) -> list[Controller]:
    return [AttachDetachController(env).controller]
