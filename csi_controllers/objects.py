"""Finalizers, names and annotations that the loops put on objects, and patches for them. Pure."""

from __future__ import annotations

import re
from typing import Any, Final

from api.volumes import Volume

PROVISIONED: Final = "external-provisioner.volume.kubernetes.io/finalizer"
NODE_ID: Final = "csi.alpha.kubernetes.io/node-id"
IDENTITY: Final = "storage.kubernetes.io/csiProvisionerIdentity"
DELETION_SECRET: Final = "volume.kubernetes.io/provisioner-deletion-secret-name"
DELETION_SECRET_NAMESPACE: Final = "volume.kubernetes.io/provisioner-deletion-secret-namespace"


def attacher_finalizer(driver: str) -> str:
    """external-attacher's finalizer for a driver."""
    plain = re.sub(r"[^a-zA-Z0-9-]", "-", driver)
    return f"external-attacher/{plain}{'X' if plain.endswith('-') else ''}"


def finalizers_of(obj: Any) -> list[str]:
    return list(obj.metadata.finalizers or ())


def with_finalizer(obj: Any, finalizer: str) -> dict[str, Any]:
    """Merge patch that adds it."""
    return {"metadata": {"finalizers": [*finalizers_of(obj), finalizer]}}


def without_finalizer(obj: Any, finalizer: str) -> dict[str, Any]:
    """Merge patch that takes it away."""
    return {"metadata": {"finalizers": [each for each in finalizers_of(obj) if each != finalizer] or None}}


def handle_of(volume: Volume | None, driver: str) -> str:
    """What the driver calls the volume; "" when it is not the driver's."""
    csi = volume.spec.csi if volume is not None and volume.spec is not None else None
    return csi.volumeHandle if csi is not None and csi.driver == driver else ""
