"""The role of external-resizer: a bound claim that asks for more gets it from the driver, then from its node.

Owns the claim's conditions and allocatedResources until the node's turn comes, and the volume's capacity. The kubelet
grows the file system and has the last word, `status.capacity`. A claim whose growth is infeasible may ask for less
(upstream's RecoverVolumeExpansionFailure).
"""
# mypy: disable-error-code="union-attr"
# Objects from the server carry metadata and spec; the models call them optional.

from __future__ import annotations

from typing import Any, Final

from api import volumes as rules
from api.models import core_v1
from api.volumes import Claim, Volume
from client.client import Client, key_of
from client.controller import DONE, Controller, Result
from client.events import NORMAL, WARNING, EventRecorder
from client.informer import EventHandler, Informer, Informers
from csi_controllers import capabilities, parameters
from csi_controllers.driver import About, Can, Driver, DriverError
from csi_controllers.objects import handle_of
from csi_controllers.retries import Retries
from machinery import quantity
from machinery.clock import Clock
from machinery.errors import NotFound
from machinery.meta import ObjectKey, rfc3339
from proto.csi.v1 import csi_pb2 as pb

FIRST_RETRY: Final = 1.0
LAST_RETRY: Final = 300.0
SLOW_RETRY: Final = 600.0  # of what is infeasible: somebody else must act
WORKERS: Final = 10
PRE_RESIZE: Final = "volume.alpha.kubernetes.io/pre-resize-capacity"
IN_PROGRESS: Final = "ControllerResizeInProgress"
INFEASIBLE: Final = "ControllerResizeInfeasible"
NODE_PENDING: Final = "NodeResizePending"
_NODE_STATES: Final = frozenset((NODE_PENDING, "NodeResizeInProgress", "NodeResizeInfeasible"))
WAITING: Final = "Waiting for user to (re-)start a pod to finish file system resize of volume on node."


class Failure(Exception):
    """The volume has not grown. `infeasible`: and will not."""

    def __init__(self, text: str, *, infeasible: bool = False) -> None:
        super().__init__(text)
        self.infeasible = infeasible


def state_of(claim: Claim) -> str:
    """How far the claim's growth is, "" when it is not growing."""
    return str((claim.status.allocatedResourceStatuses or {}).get("storage", ""))


def allocated(claim: Claim) -> int:
    """Bytes that are being made for it, or were."""
    return rules.size((claim.status.allocatedResources or {}).get("storage", "0"))


def target(claim: Claim) -> int:
    """Bytes to grow to: what is asked for, unless more is under way that may yet succeed."""
    asked, under_way = rules.requested(claim), allocated(claim)
    if under_way > asked and state_of(claim) not in ("", INFEASIBLE):
        return under_way
    return asked


def needs_growth(claim: Claim, volume: Volume) -> bool:
    """Whether the driver has something to do."""
    if claim.status is None or claim.status.phase != "Bound":
        return False
    has = rules.size((claim.status.capacity or {}).get("storage", "0"))
    size = target(claim)
    if size <= has:
        return False
    return rules.capacity(volume) < size or state_of(claim) not in _NODE_STATES


def conditions(claim: Claim, now: str, **wanted: str | None) -> list[dict[str, Any]]:
    """The claim's conditions with these types set to True (value: message), or taken away (None)."""
    kept = [
        {
            key: value
            for key in ("type", "status", "reason", "message", "lastTransitionTime", "lastProbeTime")
            if (value := getattr(each, key, None)) is not None
        }
        for each in claim.status.conditions or ()
        if each.type not in wanted
    ]
    known = {each.type: each for each in claim.status.conditions or ()}
    for type_, message in wanted.items():
        if message is None:
            continue
        before = known.get(type_)
        since = before.lastTransitionTime if before is not None and before.status == "True" else now
        told = {"message": message} if message else {}
        kept.append({"type": type_, "status": "True", "lastProbeTime": None, "lastTransitionTime": since, **told})
    return kept


class Resizer:
    """The loop over claims."""

    def __init__(
        self,
        client: Client,
        informers: Informers,
        clock: Clock,
        events: EventRecorder,
        driver: Driver,
        about: About,
    ) -> None:
        self._client = client
        self._clock = clock
        self._events = events
        self._driver = driver
        self._about = about
        self._claims: Informer[Claim] = informers.informer(Claim)
        self._volumes: Informer[Volume] = informers.informer(Volume)
        self._retries = Retries(clock, FIRST_RETRY, LAST_RETRY)
        reads: list[Informer[Any]] = [self._claims, self._volumes]
        self.controller = Controller("csi-resizer", self.reconcile, clock=clock, informers=reads, workers=WORKERS)
        self._claims.add_handler(EventHandler(self._changed, lambda _, new: self._changed(new)))

    def _changed(self, claim: Claim) -> None:
        if claim.spec.volumeName and claim.status is not None:
            has = rules.size((claim.status.capacity or {}).get("storage", "0"))
            if max(rules.requested(claim), allocated(claim)) > has:
                self.controller.enqueue(key_of(claim))

    async def reconcile(self, key: ObjectKey) -> Result:
        claim = self._claims.lister.get(key)
        if claim is None or claim.metadata.deletionTimestamp is not None:
            self._retries.forget(key)
            return DONE
        volume = self._volumes.lister.get(ObjectKey("", claim.spec.volumeName or ""))
        if volume is None or not handle_of(volume, self._about.name) or not needs_growth(claim, volume):
            return DONE
        size = target(claim)
        left = self._retries.left(key, size)
        if left:
            return Result(requeue_after=left)
        claim = await self._begin(claim, volume, size)
        try:
            actual, on_node = await self._expand(volume, size)
        except Failure as error:
            await self._failed(claim, volume, error)
            wait = SLOW_RETRY if error.infeasible else 0.0
            return Result(requeue_after=self._retries.after_failure(key, size, at_least=wait))
        self._retries.forget(key)
        volume = await self._record(claim, volume, actual)
        await self._finish(claim, actual, on_node=on_node)
        return DONE

    def _now(self) -> str:
        return rfc3339(self._clock.now())

    async def _begin(self, claim: Claim, volume: Volume, size: int) -> Claim:
        wanted = quantity.format_bytes(size)
        name = volume.metadata.name
        if state_of(claim) != IN_PROGRESS or allocated(claim) != size:
            status = {
                "allocatedResources": {"storage": wanted},
                "allocatedResourceStatuses": {"storage": IN_PROGRESS},
                "conditions": conditions(claim, self._now(), Resizing=""),
            }
            claim = await self._status(claim, status)
        self._events.event(claim, NORMAL, "Resizing", f"External resizer is resizing volume {name}")
        return claim

    async def _expand(self, volume: Volume, size: int) -> tuple[int, bool]:
        """(bytes that it has, whether the node has to do its part). Raises Failure."""
        block = rules.mode_of(volume) == "Block"
        if Can.EXPAND_VOLUME not in self._about.can:
            return size, not block  # the node does it all
        csi = volume.spec.csi
        assert csi is not None, "handle_of has found one"
        request = pb.ControllerExpandVolumeRequest(
            volume_id=csi.volumeHandle, capacity_range=pb.CapacityRange(required_bytes=size)
        )
        try:
            mode = capabilities.strongest(volume.spec.accessModes or ())
            options, fstype = volume.spec.mountOptions or (), csi.fsType or ""
            wanted = capabilities.capability(mode, self._about, block=block, fstype=fstype, options=options)
            request.volume_capability.CopyFrom(wanted)
            ref = csi.controllerExpandSecretRef
            if ref is not None:
                secret = await self._client.get(core_v1.Secret, ref.name or "", ref.namespace)
                request.secrets.update(parameters.secret_data(secret))
            answer = await self._driver.call("ControllerExpandVolume", request)
        except DriverError as error:
            raise Failure(str(error), infeasible=error.is_infeasible) from error
        except (NotFound, parameters.BadParameter, capabilities.UnsupportedModes) as error:
            raise Failure(str(error)) from error
        return int(answer.capacity_bytes) or size, bool(answer.node_expansion_required)

    async def _failed(self, claim: Claim, volume: Volume, error: Failure) -> None:
        text = f'resize volume "{volume.metadata.name}" by resizer "{self._about.name}" failed: {error}'
        self._events.event(claim, WARNING, "VolumeResizeFailed", text)
        state = INFEASIBLE if error.infeasible else IN_PROGRESS
        status = {
            "allocatedResourceStatuses": {"storage": state},
            "conditions": conditions(claim, self._now(), ControllerResizeError=str(error)),
        }
        await self._status(claim, status)

    async def _record(self, claim: Claim, volume: Volume, size: int) -> Volume:
        """The volume has its new size; what it had is noted for the kubelet."""
        if rules.capacity(volume) >= size:
            return volume
        has = (claim.status.capacity or {}).get("storage", "0")
        patch = {
            "metadata": {"annotations": {PRE_RESIZE: has}},
            "spec": {"capacity": {"storage": quantity.format_bytes(size)}},
        }
        name, version = volume.metadata.name or "", volume.metadata.resourceVersion
        return await self._client.patch(Volume, name, patch, resource_version=version)

    async def _finish(self, claim: Claim, size: int, *, on_node: bool) -> None:
        if on_node:
            wanted = {"FileSystemResizePending": WAITING, "ControllerResizeError": None, "Resizing": None}
            status: dict[str, Any] = {
                "allocatedResourceStatuses": {"storage": NODE_PENDING},
                "conditions": conditions(claim, self._now(), **wanted),
            }
            await self._status(claim, status)
            text = "Require file system resize of volume on node"
            self._events.event(claim, NORMAL, "FileSystemResizeRequired", text)
            return
        gone = dict.fromkeys(("Resizing", "FileSystemResizePending", "ControllerResizeError"))
        status = {
            "capacity": {"storage": quantity.format_bytes(size)},
            "allocatedResources": {"storage": quantity.format_bytes(size)},
            "allocatedResourceStatuses": None,
            "conditions": conditions(claim, self._now(), **gone) or None,
        }
        await self._status(claim, status)
        self._events.event(claim, NORMAL, "VolumeResizeSuccessful", "Resize volume succeeded")

    async def _status(self, claim: Claim, status: dict[str, Any]) -> Claim:
        meta = claim.metadata
        return await self._client.patch(
            Claim,
            meta.name or "",
            {"status": status},
            meta.namespace,
            subresource="status",
            resource_version=meta.resourceVersion,
        )
