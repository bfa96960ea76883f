"""Which container of which pod a stream or log request means, with upstream's errors. Pure; called by the service."""

from __future__ import annotations

from pathlib import Path

from kubelet.pod.config import NodeFacts, log_directory
from kubelet.pod.machine import PodMachine
from kubelet.pod.slot import Slot
from kubelet.records import ContainerRecord
from machinery.errors import BadRequest, NotFound

_PULL_TEXTS = {
    "ErrImagePull": "image can't be pulled",
    "ImagePullBackOff": "trying and failing to pull image",
}


def slot_for(machine: PodMachine, container: str) -> Slot:
    """The named container, or the only one. Raises BadRequest."""
    name = container or next(iter(machine.spec.containers)).name
    slot = machine.slots.get(name)
    if slot is None:
        pod = machine.pod.metadata.name if machine.pod.metadata else ""
        raise BadRequest(f"container {name} is not valid for pod {pod}")
    return slot


def log_record(machine: PodMachine, container: str, *, previous: bool) -> ContainerRecord:
    """The attempt whose log is asked for. Raises BadRequest with the reason why there is none."""
    slot = slot_for(machine, container)
    pod = machine.pod.metadata.name if machine.pod.metadata else ""
    waiting = slot.waiting is not None and not slot.running and slot.restarts()
    if previous:
        record = slot.current if waiting else slot.previous
        if record is None or not record.ended:
            raise BadRequest(f'previous terminated container "{slot.name}" in pod "{pod}" not found')
        return record
    if slot.current is not None and slot.current.state != 0:
        return slot.current
    if slot.previous is not None:
        return slot.previous
    reason = (
        slot.waiting[0] if slot.waiting else "PodInitializing" if machine.spec.initContainers else "ContainerCreating"
    )
    why = _PULL_TEXTS.get(reason, reason)
    raise BadRequest(f'container "{slot.name}" in pod "{pod}" is waiting to start: {why}')


def log_path(machine: PodMachine, record: ContainerRecord, node: NodeFacts) -> Path:
    """Where the runtime writes the log of an attempt."""
    if record.log_path:
        return Path(record.log_path)
    return log_directory(node, machine.pod) / record.name / f"{record.attempt}.log"


def running_id(machine: PodMachine, container: str, *, attach: bool = False) -> str:
    """The id of a running container, for exec and attach. Raises BadRequest or NotFound, worded as each verb does."""
    slot = slot_for(machine, container)
    if slot.current is not None and slot.running:
        return slot.current.id
    meta = machine.pod.metadata
    if attach and meta is not None:
        raise NotFound(f"container {slot.name} not found in pod {meta.name}_{meta.namespace}")
    raise NotFound(f'container not found ("{slot.name}")')
