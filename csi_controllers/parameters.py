"""What a StorageClass's parameters mean to the loops and what is handed on to the driver. Pure.

Owns the keys under `csi.storage.k8s.io/`: the file system, and where secrets for each call are to be found, with
templates filled in from the claim (external-provisioner's and the API's documentation list them).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from api.models import core_v1
from api.volumes import Claim, annotations_of

PREFIX: Final = "csi.storage.k8s.io/"
FSTYPE: Final = f"{PREFIX}fstype"
_OLD: Final = {
    "fstype": FSTYPE,
    "csiProvisionerSecretName": f"{PREFIX}provisioner-secret-name",
    "csiProvisionerSecretNamespace": f"{PREFIX}provisioner-secret-namespace",
    "csiControllerPublishSecretName": f"{PREFIX}controller-publish-secret-name",
    "csiControllerPublishSecretNamespace": f"{PREFIX}controller-publish-secret-namespace",
    "csiNodeStageSecretName": f"{PREFIX}node-stage-secret-name",
    "csiNodeStageSecretNamespace": f"{PREFIX}node-stage-secret-namespace",
    "csiNodePublishSecretName": f"{PREFIX}node-publish-secret-name",
    "csiNodePublishSecretNamespace": f"{PREFIX}node-publish-secret-namespace",
}
_VOLUME_FIELDS: Final = {
    "controller-publish": "controllerPublishSecretRef",
    "node-stage": "nodeStageSecretRef",
    "node-publish": "nodePublishSecretRef",
    "controller-expand": "controllerExpandSecretRef",
    "node-expand": "nodeExpandSecretRef",
}
_CALLS: Final = ("provisioner", *_VOLUME_FIELDS)
_KNOWN: Final = frozenset(
    (FSTYPE, *(f"{PREFIX}{call}-secret-{part}" for call in _CALLS for part in ("name", "namespace")))
)
_KNOWN_DEFAULTS: Final = frozenset((f"{PREFIX}secret-name", f"{PREFIX}secret-namespace"))
_TEMPLATE: Final = re.compile(r"\$\{([^}]*)\}")
_ANNOTATION: Final = re.compile(r"pvc\.annotations\['([^']+)'\]")


class BadParameter(Exception):
    """The class cannot be used; the message says why."""


@dataclass(frozen=True)
class SecretRef:
    """Where a Secret is; it is read when it is needed."""

    name: str
    namespace: str


@dataclass(frozen=True)
class Meaning:
    """`volume_refs`: fields of spec.csi of the volume that is made."""

    for_driver: dict[str, str]
    fstype: str
    provisioner: SecretRef | None
    volume_refs: dict[str, SecretRef]


def understand(given: Mapping[str, str] | None, claim: Claim, volume: str) -> Meaning:
    """Raises BadParameter."""
    parameters: dict[str, str] = {}
    for key, value in (given or {}).items():
        name = _OLD.get(key, key)
        if name in parameters:
            raise BadParameter(f"{key} and {name} are the same parameter")
        parameters[name] = value
    unknown = sorted(key for key in parameters if key.startswith(PREFIX) and key not in _KNOWN | _KNOWN_DEFAULTS)
    if unknown:
        raise BadParameter(f'found unknown parameter key "{unknown[0]}" with reserved namespace {PREFIX}')
    refs = {call: found for call in _CALLS if (found := _reference(parameters, call, claim, volume)) is not None}
    return Meaning(
        for_driver={key: value for key, value in parameters.items() if not key.startswith(PREFIX)},
        fstype=parameters.get(FSTYPE, ""),
        provisioner=refs.get("provisioner"),
        volume_refs={_VOLUME_FIELDS[call]: ref for call, ref in refs.items() if call in _VOLUME_FIELDS},
    )


def _reference(parameters: Mapping[str, str], call: str, claim: Claim, volume: str) -> SecretRef | None:
    def lookup(part: str) -> str | None:
        return parameters.get(f"{PREFIX}{call}-secret-{part}", parameters.get(f"{PREFIX}secret-{part}"))

    name, namespace = lookup("name"), lookup("namespace")
    if name is None and namespace is None:
        return None
    if name is None or namespace is None:
        missing = "name" if name is None else "namespace"
        raise BadParameter(f"only one of the secret's name and namespace for {call} is given: the {missing} is missing")
    by_volume = {"pv.name": volume, "pvc.namespace": claim.metadata.namespace or ""}  # type: ignore[union-attr]
    # What the provisioner reads itself may not depend on what a user could write into the claim, but its name.
    more = {"pvc.name": claim.metadata.name or ""}  # type: ignore[union-attr]
    annotations = {} if call == "provisioner" else annotations_of(claim)
    return SecretRef(_fill(name, {**by_volume, **more}, annotations), _fill(namespace, by_volume, {}))


def _fill(text: str, values: Mapping[str, str], annotations: Mapping[str, str]) -> str:
    def value(match: re.Match[str]) -> str:
        token = match[1]
        if token in values:
            return values[token]
        named = _ANNOTATION.fullmatch(token)
        if named is not None and named[1] in annotations:
            return annotations[named[1]]
        raise BadParameter(f'error resolving value "{text}": invalid tokens: ["{token}"]')

    return _TEMPLATE.sub(value, text)


def secret_data(secret: core_v1.Secret) -> dict[str, str]:
    """What a driver gets of a Secret. Raises BadParameter when it is not text."""
    import base64
    import binascii

    try:
        return {key: base64.b64decode(value, validate=True).decode() for key, value in (secret.data or {}).items()}
    except (binascii.Error, UnicodeDecodeError) as error:
        raise BadParameter("the secret's data is not text") from error
