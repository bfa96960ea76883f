"""What reaches what on a node: pods → secrets, config maps, service accounts, claims → volumes.

Owns the graph that the node authorizer asks. Pods, volumes and attachments are pushed in by the feed; decoding takes
only the parts that matter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import msgspec

Reference = tuple[str, str, str]  # (plural, namespace, name)


class _Named(msgspec.Struct):
    name: str = ""


class _SecretNamed(msgspec.Struct):
    secretName: str = ""


class _Claim(msgspec.Struct):
    claimName: str = ""


class _Source(msgspec.Struct):
    secret: _Named | None = None
    configMap: _Named | None = None


class _Projected(msgspec.Struct):
    sources: list[_Source] | None = None


class _InlineCsi(msgspec.Struct):
    nodePublishSecretRef: _Named | None = None


class _Volume(msgspec.Struct):
    name: str = ""
    secret: _SecretNamed | None = None
    configMap: _Named | None = None
    persistentVolumeClaim: _Claim | None = None
    projected: _Projected | None = None
    csi: _InlineCsi | None = None
    ephemeral: dict[str, Any] | None = None


class _EnvFrom(msgspec.Struct):
    secretRef: _Named | None = None
    configMapRef: _Named | None = None


class _ValueFrom(msgspec.Struct):
    secretKeyRef: _Named | None = None
    configMapKeyRef: _Named | None = None


class _Env(msgspec.Struct):
    valueFrom: _ValueFrom | None = None


class _Container(msgspec.Struct):
    env: list[_Env] | None = None
    envFrom: list[_EnvFrom] | None = None


class _Spec(msgspec.Struct):
    nodeName: str = ""
    serviceAccountName: str = ""
    volumes: list[_Volume] | None = None
    containers: list[_Container] | None = None
    initContainers: list[_Container] | None = None
    ephemeralContainers: list[_Container] | None = None
    imagePullSecrets: list[_Named] | None = None


class _Meta(msgspec.Struct):
    name: str
    namespace: str = ""


class _ClaimReference(msgspec.Struct):
    name: str = ""
    namespace: str = ""


class _Csi(msgspec.Struct):
    nodePublishSecretRef: _ClaimReference | None = None
    nodeStageSecretRef: _ClaimReference | None = None
    nodeExpandSecretRef: _ClaimReference | None = None
    controllerPublishSecretRef: _ClaimReference | None = None
    controllerExpandSecretRef: _ClaimReference | None = None


class _VolumeSpec(msgspec.Struct):
    claimRef: _ClaimReference | None = None
    csi: _Csi | None = None


class VolumeView(msgspec.Struct):
    """The part of a PersistentVolume that the graph needs."""

    metadata: _Meta
    spec: _VolumeSpec


class _AttachmentSpec(msgspec.Struct):
    nodeName: str = ""


class AttachmentView(msgspec.Struct):
    """The part of a VolumeAttachment that the graph needs."""

    metadata: _Meta
    spec: _AttachmentSpec


class PodView(msgspec.Struct):
    """The part of a Pod that the graph needs; decoding it skips the rest."""

    metadata: _Meta
    spec: _Spec


decode_pod: Callable[[bytes], PodView] = msgspec.json.Decoder(PodView).decode
_decode_volume: Callable[[bytes], VolumeView] = msgspec.json.Decoder(VolumeView).decode
_decode_attachment: Callable[[bytes], AttachmentView] = msgspec.json.Decoder(AttachmentView).decode


def references(pod: PodView) -> Iterator[Reference]:
    """What a pod makes its node read."""
    namespace, spec = pod.metadata.namespace, pod.spec
    if spec.serviceAccountName:
        yield ("serviceaccounts", namespace, spec.serviceAccountName)
    for secret in spec.imagePullSecrets or ():
        yield ("secrets", namespace, secret.name)
    for volume in spec.volumes or ():
        if volume.secret:
            yield ("secrets", namespace, volume.secret.secretName)
        if volume.csi and volume.csi.nodePublishSecretRef:
            yield ("secrets", namespace, volume.csi.nodePublishSecretRef.name)
        if volume.configMap:
            yield ("configmaps", namespace, volume.configMap.name)
        if volume.persistentVolumeClaim:
            yield ("persistentvolumeclaims", namespace, volume.persistentVolumeClaim.claimName)
        if volume.ephemeral is not None:
            yield ("persistentvolumeclaims", namespace, f"{pod.metadata.name}-{volume.name}")
        for source in (volume.projected.sources if volume.projected else None) or ():
            if source.secret:
                yield ("secrets", namespace, source.secret.name)
            if source.configMap:
                yield ("configmaps", namespace, source.configMap.name)
    for container in (*(spec.containers or ()), *(spec.initContainers or ()), *(spec.ephemeralContainers or ())):
        for whole in container.envFrom or ():
            if whole.secretRef:
                yield ("secrets", namespace, whole.secretRef.name)
            if whole.configMapRef:
                yield ("configmaps", namespace, whole.configMapRef.name)
        for entry in container.env or ():
            if entry.valueFrom and entry.valueFrom.secretKeyRef:
                yield ("secrets", namespace, entry.valueFrom.secretKeyRef.name)
            if entry.valueFrom and entry.valueFrom.configMapKeyRef:
                yield ("configmaps", namespace, entry.valueFrom.configMapKeyRef.name)


class PodGraph:
    """Which node needs what. A reference is counted once per pod."""

    def __init__(self) -> None:
        self._pods: dict[tuple[str, str], tuple[str, frozenset[Reference]]] = {}
        self._needed: dict[tuple[str, Reference], int] = {}
        self._volumes: dict[str, tuple[Reference, frozenset[Reference]]] = {}  # volume -> its claim, its secrets
        self._claimed: dict[Reference, set[str]] = {}  # secret of a volume -> volumes
        self._attached: dict[str, str] = {}  # attachment -> node

    # Volumes: a node reads those whose claim one of its pods uses, and the secrets that mount them.

    def put_volume(self, raw: bytes) -> None:
        """A PersistentVolume was created or changed."""
        try:
            volume = _decode_volume(raw)
        except msgspec.DecodeError:
            return
        name, claim, csi = volume.metadata.name, volume.spec.claimRef, volume.spec.csi
        self.remove_volume(name)
        if claim is None or not claim.name:
            return
        references = (getattr(csi, field) for field in _Csi.__struct_fields__) if csi is not None else ()
        secrets = frozenset(("secrets", each.namespace, each.name) for each in references if each is not None)
        self._volumes[name] = (("persistentvolumeclaims", claim.namespace, claim.name), secrets)
        for secret in secrets:
            self._claimed.setdefault(secret, set()).add(name)

    def remove_volume(self, name: str) -> None:
        """A PersistentVolume is gone."""
        _, secrets = self._volumes.pop(name, (None, frozenset()))
        for secret in secrets:
            self._claimed[secret].discard(name)
            if not self._claimed[secret]:
                del self._claimed[secret]

    def clear_volumes(self) -> None:
        self._volumes.clear()
        self._claimed.clear()

    def put_attachment(self, raw: bytes) -> None:
        """A VolumeAttachment was created or changed."""
        try:
            attachment = _decode_attachment(raw)
        except msgspec.DecodeError:
            return
        self._attached[attachment.metadata.name] = attachment.spec.nodeName

    def remove_attachment(self, name: str) -> None:
        """A VolumeAttachment is gone."""
        self._attached.pop(name, None)

    def clear_attachments(self) -> None:
        self._attached.clear()

    def mounts(self, node: str, volume: str) -> bool:
        """True when a pod of the node uses the volume."""
        found = self._volumes.get(volume)
        return found is not None and (node, found[0]) in self._needed

    # Pods.

    def put(self, raw: bytes) -> None:
        """A pod was created or changed."""
        try:
            pod = decode_pod(raw)
        except msgspec.DecodeError:
            return
        key = (pod.metadata.namespace, pod.metadata.name)
        if not pod.spec.nodeName:
            if key in self._pods:
                self.remove(*key)
            return
        entry = (pod.spec.nodeName, frozenset(references(pod)))
        known = self._pods.get(key)
        if known == entry:
            return
        if known is not None:
            self.remove(*key)
        self._pods[key] = entry
        for reference in entry[1]:
            edge = (entry[0], reference)
            self._needed[edge] = self._needed.get(edge, 0) + 1

    def remove(self, namespace: str, name: str) -> None:
        """A pod is gone."""
        node, found = self._pods.pop((namespace, name), ("", frozenset()))
        for reference in found:
            edge = (node, reference)
            left = self._needed[edge] - 1
            if left:
                self._needed[edge] = left
            else:
                del self._needed[edge]

    def clear(self) -> None:
        """Forget all, before a new list."""
        self._pods.clear()
        self._needed.clear()

    def needs(self, node: str, plural: str, namespace: str, name: str) -> bool:
        """True when the object is reached from a pod of the node."""
        if plural == "persistentvolumes":
            return self.mounts(node, name)
        if plural == "volumeattachments":
            return bool(node) and self._attached.get(name) == node
        reference = (plural, namespace, name)
        if (node, reference) in self._needed:
            return True
        return any(self.mounts(node, volume) for volume in self._claimed.get(reference, ()))

    def runs(self, node: str, namespace: str, name: str) -> bool:
        """True when the pod is bound to the node."""
        return self._pods.get((namespace, name), ("",))[0] == node

    def knows(self, namespace: str, name: str) -> bool:
        """True when the pod is bound to any node."""
        return (namespace, name) in self._pods
