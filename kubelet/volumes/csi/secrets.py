"""Secrets that a volume's driver is given. Called by `pod_csi` and `expansion`."""

from __future__ import annotations

import base64

from kubelet.volumes.csi.messages import SecretName
from kubelet.volumes.objects import ObjectReader
from kubelet.volumes.payload import VolumeError
from machinery.errors import StatusError


async def secret_values(reader: ObjectReader, what: str, name: SecretName | None) -> dict[str, str]:
    """The decoded values of a Secret, {} when none is asked for; `what` is the field that names it.

    Raises VolumeError, with upstream's text.
    """
    if name is None:
        return {}
    namespace, secret = name
    lead = f"fetching {what} {namespace}/{secret} failed: kubernetes.io/csi: failed to find the secret {secret}"
    try:
        found = (await reader.secrets(namespace, [secret]))[secret]
    except StatusError as error:
        raise VolumeError(f"{lead} in the namespace {namespace} with error: {error.message}") from error
    if found is None:
        raise VolumeError(f'{lead} in the namespace {namespace} with error: secrets "{secret}" not found')
    data = found.data or {}
    try:
        return {key: base64.b64decode(raw).decode() for key, raw in data.items()}
    except UnicodeDecodeError as error:
        text = "rpc error: code = Internal desc = grpc: error while marshaling: string field contains invalid UTF-8"
        raise VolumeError(text) from error
