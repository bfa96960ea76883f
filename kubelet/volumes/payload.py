"""The files of configMap, secret, downwardAPI and projected volumes. Pure: objects are handed in already read."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from api.models import core_v1
from kubelet.downward import DownwardError, PodFacts, field_value, resource_value

DEFAULT_MODE = 0o644


class VolumeError(Exception):
    """A volume cannot be set up (yet)."""


class VolumeWait(VolumeError):
    """A volume is still on its way: no news, and told to nobody."""


class VolumeLimit(VolumeError):
    """The node bears no more volumes of that kind: the pod has no future here."""


@dataclass(frozen=True, slots=True)
class File:
    content: bytes
    mode: int = DEFAULT_MODE


@dataclass(frozen=True, slots=True)
class Token:
    """A service account token a volume wants: audience, lifetime and where it goes."""

    audience: str
    expiration: int
    path: str


@dataclass(slots=True)
class Wants:
    """The objects that a pod's volumes refer to."""

    config_maps: set[str] = field(default_factory=set)
    secrets: set[str] = field(default_factory=set)
    tokens: set[tuple[str, int]] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Given:
    """The objects themselves; a missing one maps to None."""

    config_maps: Mapping[str, core_v1.ConfigMap | None]
    secrets: Mapping[str, core_v1.Secret | None]
    tokens: Mapping[tuple[str, int], str]
    facts: PodFacts


Payload = dict[str, File]


def wants(volumes: Sequence[core_v1.Volume]) -> Wants:
    """What must be read before the payloads can be made."""
    result = Wants()
    for volume in volumes:
        if volume.configMap and volume.configMap.name:
            result.config_maps.add(volume.configMap.name)
        if volume.secret and volume.secret.secretName:
            result.secrets.add(volume.secret.secretName)
        for source in (volume.projected.sources if volume.projected else None) or ():
            if source.configMap and source.configMap.name:
                result.config_maps.add(source.configMap.name)
            if source.secret and source.secret.name:
                result.secrets.add(source.secret.name)
            if source.serviceAccountToken:
                result.tokens.add(token_key(source.serviceAccountToken))
    return result


def token_key(source: core_v1.ServiceAccountTokenProjection) -> tuple[str, int]:
    return source.audience or "", source.expirationSeconds or 3600


def payload(pod: core_v1.Pod, volume: core_v1.Volume, given: Given) -> Payload | None:
    """The files of one volume, None for a kind that is not made of files. Raises VolumeError."""
    if volume.configMap is not None:
        source = volume.configMap
        mode = _mode(source.defaultMode)
        return _config_map(source.name or "", source.items, mode, bool(source.optional), given)
    if volume.secret is not None:
        secret = volume.secret
        return _secret(secret.secretName or "", secret.items, _mode(secret.defaultMode), bool(secret.optional), given)
    if volume.downwardAPI is not None:
        return _downward(pod, volume.downwardAPI.items, _mode(volume.downwardAPI.defaultMode), given)
    if volume.projected is not None:
        return _projected(pod, volume.projected, given)
    return None


def _mode(mode: int | None) -> int:
    return DEFAULT_MODE if mode is None else mode


def _projected(pod: core_v1.Pod, source: core_v1.ProjectedVolumeSource, given: Given) -> Payload:
    mode = _mode(source.defaultMode)
    files: Payload = {}
    for part in source.sources or ():
        if part.configMap is not None:
            chosen = part.configMap
            files.update(_config_map(chosen.name or "", chosen.items, mode, bool(chosen.optional), given))
        if part.secret is not None:
            secret = part.secret
            files.update(_secret(secret.name or "", secret.items, mode, bool(secret.optional), given))
        if part.downwardAPI is not None:
            files.update(_downward(pod, part.downwardAPI.items, mode, given))
        if part.serviceAccountToken is not None:
            token = given.tokens[token_key(part.serviceAccountToken)]
            files[part.serviceAccountToken.path] = File(token.encode(), mode)
        if part.clusterTrustBundle is not None and not part.clusterTrustBundle.optional:
            raise VolumeError("clusterTrustBundle projections are not supported")
    return files


def _config_map(
    name: str, items: Sequence[core_v1.KeyToPath] | None, mode: int, optional: bool, given: Given
) -> Payload:
    config = given.config_maps.get(name)
    if config is None:
        if optional:
            return {}
        raise VolumeError(f'configmap "{name}" not found')
    data = {key: value.encode() for key, value in (config.data or {}).items()}
    data.update({key: base64.b64decode(value) for key, value in (config.binaryData or {}).items()})
    return _choose(data, items, mode, optional)


def _secret(name: str, items: Sequence[core_v1.KeyToPath] | None, mode: int, optional: bool, given: Given) -> Payload:
    secret = given.secrets.get(name)
    if secret is None:
        if optional:
            return {}
        raise VolumeError(f'secret "{name}" not found')
    data = {key: base64.b64decode(value) for key, value in (secret.data or {}).items()}
    return _choose(data, items, mode, optional)


def _choose(data: Mapping[str, bytes], items: Sequence[core_v1.KeyToPath] | None, mode: int, optional: bool) -> Payload:
    if not items:
        return {key: File(value, mode) for key, value in data.items()}
    files: Payload = {}
    for item in items:
        if item.key not in data:
            if optional:
                continue
            raise VolumeError(f"references non-existent config key: {item.key}")
        files[_inside(item.path)] = File(data[item.key], mode if item.mode is None else item.mode)
    return files


def _downward(
    pod: core_v1.Pod, items: Sequence[core_v1.DownwardAPIVolumeFile] | None, mode: int, given: Given
) -> Payload:
    files: Payload = {}
    for item in items or ():
        try:
            if item.fieldRef is not None:
                text = field_value(pod, item.fieldRef.fieldPath, given.facts)
            elif item.resourceFieldRef is not None:
                named = item.resourceFieldRef.containerName
                assert pod.spec is not None
                everyone = (*pod.spec.containers, *(pod.spec.initContainers or ()))
                container = next((each for each in everyone if each.name == named), None)
                if container is None:
                    raise VolumeError(f"container {named} not found")
                text = resource_value(item.resourceFieldRef, container, given.facts)
            else:
                continue
        except DownwardError as error:
            raise VolumeError(str(error)) from error
        files[_inside(item.path)] = File(text.encode(), mode if item.mode is None else item.mode)
    return files


def _inside(path: str) -> str:
    """A path that stays in its volume. Raises VolumeError."""
    if path.startswith("/") or ".." in path.split("/") or not path:
        raise VolumeError(f"invalid path: {path!r}")
    return path
