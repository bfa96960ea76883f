"""Which volumes, nodes, pods and attachments belong together, read from the caches.

Owns the indexes and the mapping of every change to the volumes it concerns. Reads only. Called by `controller`; a
volume's key is its unique name, because two PersistentVolumes may stand for one volume.
"""
# mypy: disable-error-code="union-attr"
# Objects from the server carry metadata, spec and status; the models call them optional.

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from api import attachments as names
from api import volumes as rules
from api.models import core_v1, storage_v1
from api.volumes import Claim, Volume
from client.client import key_of
from client.controller import Controller
from client.informer import EventHandler, Informer
from client.listers import BY_NODE, pod_node
from controller_manager.attach_detach.plan import Attachment, Place
from controller_manager.environment import Environment
from controller_manager.node_lifecycle.taints import NO_EXECUTE, OUT_OF_SERVICE
from controller_manager.objects import condition, is_finished
from controller_manager.persistent_volume.controller import BY_CLAIM, claims_index
from machinery.meta import ObjectKey

BY_UNIQUE_NAME: Final = "unique-name"
BY_DRIVER: Final = "csi-driver"
BY_VOLUME: Final = "volume"
BY_ATTACHED: Final = "attached"

VolumeAttachment = storage_v1.VolumeAttachment


def _unique_index(volume: Volume) -> Iterable[str]:
    name = names.unique_name_of(volume)
    return (name,) if name else ()


def _driver_index(volume: Volume) -> Iterable[str]:
    return (volume.spec.csi.driver,) if volume.spec.csi is not None else ()


def _source_index(attachment: VolumeAttachment) -> Iterable[str]:
    name = attachment.spec.source.persistentVolumeName
    return (name,) if name else ()


def _attachment_node(attachment: VolumeAttachment) -> Iterable[str]:
    return (attachment.spec.nodeName,)


def attached_names(node: core_v1.Node) -> list[str]:
    """What the Node's status says is attached to it."""
    return [each.name for each in (node.status.volumesAttached if node.status is not None else None) or ()]


def in_use(node: core_v1.Node) -> list[str]:
    """What the kubelet says may be mounted there."""
    return list((node.status.volumesInUse if node.status is not None else None) or ())


def is_managed(node: core_v1.Node) -> bool:
    """Whether this controller attaches the node's volumes, not its kubelet."""
    return (node.metadata.annotations or {}).get(names.MANAGED) == "true"


def is_over(pod: core_v1.Pod) -> bool:
    """Whether a pod uses its volumes no more: it has ended, or it is being deleted and nothing in it runs."""
    if is_finished(pod):
        return True
    if pod.metadata.deletionTimestamp is None:
        return False
    statuses = (pod.status.containerStatuses if pod.status is not None else None) or ()
    return all(
        each.state is not None and (each.state.terminated is not None or each.state.waiting is not None)
        for each in statuses
    )


def _is_ready(node: core_v1.Node) -> bool:
    found = condition(node, "Ready")
    return found is not None and found.status == "True"


def _is_out_of_service(node: core_v1.Node) -> bool:
    return any(each.key == OUT_OF_SERVICE and each.effect == NO_EXECUTE for each in node.spec.taints or ())


def place_of(node: core_v1.Node | None, name: str, attachment: VolumeAttachment | None, **rest: Any) -> Place:
    """One node with what is known of the volume there. A node that is gone may still run: its mounts are not."""
    status = attachment.status if attachment is not None else None
    error = status.attachError if status is not None else None
    said = None
    if attachment is not None:
        said = Attachment(
            attached=status is not None and bool(status.attached),
            leaving=attachment.metadata.deletionTimestamp is not None,
            error=(error.message or "attach failed") if error is not None else "",
        )
    if node is None:
        return Place(attachment=said, mounted=True, healthy=False, **rest)
    return Place(
        attachment=said,
        reported=name in attached_names(node),
        mounted=name in in_use(node),
        healthy=_is_ready(node),
        out_of_service=_is_out_of_service(node),
        **rest,
    )


class View:
    """Reads of the caches, by volume."""

    def __init__(self, env: Environment) -> None:
        informer = env.informers.informer
        self.pods: Informer[core_v1.Pod] = informer(core_v1.Pod, indexers={BY_CLAIM: claims_index, BY_NODE: pod_node})
        self.claims: Informer[Claim] = informer(Claim)
        self.volumes: Informer[Volume] = informer(
            Volume, indexers={BY_UNIQUE_NAME: _unique_index, BY_DRIVER: _driver_index}
        )
        self.attachments: Informer[VolumeAttachment] = informer(
            VolumeAttachment, indexers={BY_VOLUME: _source_index, BY_NODE: _attachment_node}
        )
        self.nodes: Informer[core_v1.Node] = informer(core_v1.Node, indexers={BY_ATTACHED: attached_names})
        self.drivers: Informer[storage_v1.CSIDriver] = informer(storage_v1.CSIDriver)

    @property
    def informers(self) -> list[Informer[Any]]:
        return [self.pods, self.claims, self.volumes, self.attachments, self.nodes, self.drivers]

    # ---- one volume ----

    def volumes_named(self, name: str) -> list[Volume]:
        """The PersistentVolumes that stand for the volume, oldest first."""
        found = self.volumes.lister.by_index(BY_UNIQUE_NAME, name)
        return sorted(found, key=lambda each: (str(each.metadata.creationTimestamp or ""), each.metadata.name or ""))

    def wanted(self, volumes: Iterable[Volume]) -> dict[str, list[core_v1.Pod]]:
        """The pods that need the volume attached, by node."""
        found: dict[str, list[core_v1.Pod]] = {}
        for volume in volumes:
            ref = volume.spec.claimRef
            driver = self.drivers.lister.get(ObjectKey("", volume.spec.csi.driver))
            if ref is None or not names.attach_required(driver):
                continue
            claim = self.claims.lister.get(ObjectKey(ref.namespace or "", ref.name or ""))
            if claim is None or claim.spec.volumeName != volume.metadata.name or claim.metadata.uid != ref.uid:
                continue
            for pod in self.pods.lister.by_index(BY_CLAIM, str(key_of(claim))):
                node = self.nodes.lister.get(ObjectKey("", pod.spec.nodeName or ""))
                if node is None or not is_managed(node) or is_over(pod) or not self._claim_is_its_own(pod, claim):
                    continue
                found.setdefault(node.metadata.name or "", []).append(pod)
        return found

    @staticmethod
    def _claim_is_its_own(pod: core_v1.Pod, claim: Claim) -> bool:
        """A claim that has the name of an ephemeral volume's, but is not the pod's, is not used by it."""
        for volume in pod.spec.volumes or ():
            if (
                volume.ephemeral is not None
                and rules.claim_name(pod.metadata.name or "", volume) == claim.metadata.name
            ):
                return rules.is_for_pod(pod, claim)
        return True

    def attachments_of(self, volumes: Iterable[Volume]) -> dict[str, VolumeAttachment]:
        """Our attachments of the volume, by node. Those that others have made by hand have other names."""
        found: dict[str, VolumeAttachment] = {}
        for volume in volumes:
            source = volume.spec.csi
            for each in self.attachments.lister.by_index(BY_VOLUME, volume.metadata.name or ""):
                node = each.spec.nodeName
                if each.metadata.name == names.attachment_name(source.driver, source.volumeHandle, node):
                    found[node] = each
        return found

    # ---- what a change concerns ----

    def feed(self, controller: Controller) -> None:
        """Queue the volumes that every change concerns."""

        def all_of(found: Iterable[str]) -> list[ObjectKey]:
            return [ObjectKey("", name) for name in found if name]

        controller.watches(self.volumes, lambda volume: all_of(_unique_index(volume)))
        controller.watches(self.claims, lambda claim: all_of(self._of_volume(claim.spec.volumeName)))
        controller.watches(self.pods, lambda pod: all_of(self._of_pod(pod)))
        controller.watches(
            self.attachments, lambda each: all_of(self._of_volume(each.spec.source.persistentVolumeName))
        )
        controller.watches(
            self.drivers,
            lambda driver: all_of(
                names.unique_name_of(each)
                for each in self.volumes.lister.by_index(BY_DRIVER, driver.metadata.name or "")
            ),
        )

        def node_came_or_went(node: core_v1.Node) -> None:
            for key in all_of(self._of_node(node)):
                controller.enqueue(key)

        def node_changed(old: core_v1.Node, new: core_v1.Node) -> None:
            if _facts(old) != _facts(new):
                node_came_or_went(old)
                node_came_or_went(new)

        self.nodes.add_handler(EventHandler(node_came_or_went, node_changed, node_came_or_went))

    def _of_volume(self, name: str | None) -> Iterable[str]:
        volume = self.volumes.lister.get(ObjectKey("", name or ""))
        return _unique_index(volume) if volume is not None else ()

    def _of_pod(self, pod: core_v1.Pod) -> Iterable[str]:
        if not pod.spec.nodeName:
            return
        for name in rules.claims_of(pod):
            claim = self.claims.lister.get(ObjectKey(pod.metadata.namespace or "", name))
            if claim is not None:
                yield from self._of_volume(claim.spec.volumeName)

    def _of_node(self, node: core_v1.Node) -> Iterable[str]:
        name = node.metadata.name or ""
        yield from attached_names(node)
        for attachment in self.attachments.lister.by_index(BY_NODE, name):
            yield from self._of_volume(attachment.spec.source.persistentVolumeName)
        for pod in self.pods.lister.by_index(BY_NODE, name):
            yield from self._of_pod(pod)


def _facts(node: core_v1.Node) -> tuple[Any, ...]:
    return attached_names(node), in_use(node), _is_ready(node), _is_out_of_service(node), is_managed(node)
