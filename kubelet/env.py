"""The environment of a container: values, references, `$(VAR)` expansion, service variables. Pure.

ConfigMaps and Secrets are handed in already read (`Sources`); `pod.worker` reads those that `references` names.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from api.models import core_v1
from kubelet.downward import DownwardError, PodFacts, field_value, resource_value

_REFERENCE = re.compile(r"\$(\$|\(([^()]*)\))")
_NAME = re.compile(r"[ -<>-~]+\Z")  # printable ASCII other than "=", as the API server validates


class EnvError(Exception):
    """The environment cannot be built: CreateContainerConfigError."""


@dataclass(frozen=True, slots=True)
class Sources:
    """The objects an environment refers to; a missing one maps to None."""

    config_maps: Mapping[str, core_v1.ConfigMap | None] = field(default_factory=dict)
    secrets: Mapping[str, core_v1.Secret | None] = field(default_factory=dict)


def expand(text: str, values: Mapping[str, str]) -> str:
    """`$(NAME)` by value, `$$` is a literal dollar, unknown references stay as they are."""

    def one(match: re.Match[str]) -> str:
        if match[1] == "$":
            return "$"
        return values.get(match[2], match[0])

    return _REFERENCE.sub(one, text)


def expand_sub_path(text: str, values: Mapping[str, str]) -> str:
    """A subPathExpr; a variable that is not set, or is empty, is an error. Raises EnvError."""
    names = (match[2] for match in _REFERENCE.finditer(text) if match[1] != "$")
    missing = sorted({name for name in names if not values.get(name)})
    if missing:
        raise EnvError(f"missing value for {', '.join(f'{chr(34)}{name}{chr(34)}' for name in missing)}")
    return expand(text, values)


def references(container: core_v1.Container) -> tuple[set[str], set[str]]:
    """Names of the ConfigMaps and of the Secrets that the container's environment reads."""
    maps: set[str] = set()
    secrets: set[str] = set()
    for source in container.envFrom or ():
        if source.configMapRef and source.configMapRef.name:
            maps.add(source.configMapRef.name)
        if source.secretRef and source.secretRef.name:
            secrets.add(source.secretRef.name)
    for variable in container.env or ():
        if variable.valueFrom is None:
            continue
        if variable.valueFrom.configMapKeyRef and variable.valueFrom.configMapKeyRef.name:
            maps.add(variable.valueFrom.configMapKeyRef.name)
        if variable.valueFrom.secretKeyRef and variable.valueFrom.secretKeyRef.name:
            secrets.add(variable.valueFrom.secretKeyRef.name)
    return maps, secrets


def secret_text(secret: core_v1.Secret, key: str) -> str | None:
    """One decoded value of a Secret, None when it has no such key."""
    raw = (secret.data or {}).get(key)
    return None if raw is None else base64.b64decode(raw).decode("utf-8", "surrogateescape")


def build(
    pod: core_v1.Pod,
    container: core_v1.Container,
    sources: Sources,
    facts: PodFacts,
    service_variables: Mapping[str, str],
) -> dict[str, str]:
    """All variables in order of precedence: services, envFrom, env. Raises EnvError."""
    namespace = (pod.metadata.namespace if pod.metadata else None) or ""
    result: dict[str, str] = {}
    for source in container.envFrom or ():
        result.update(_from_source(source, sources, namespace))
    declared: dict[str, str] = {}
    for variable in container.env or ():
        if variable.valueFrom is not None:
            value = _from_reference(pod, container, variable, sources, facts, namespace)
            if value is None:
                continue
        else:
            value = expand(variable.value or "", {**service_variables, **result})
        declared[variable.name] = value
        result[variable.name] = value
    return {**{name: value for name, value in service_variables.items() if name not in result}, **result}


def _from_source(source: core_v1.EnvFromSource, sources: Sources, namespace: str) -> dict[str, str]:
    prefix = source.prefix or ""
    if source.configMapRef is not None:
        name = source.configMapRef.name or ""
        config = sources.config_maps.get(name)
        if config is None:
            if source.configMapRef.optional:
                return {}
            raise EnvError(f'configmap "{name}" not found')
        return {prefix + key: value for key, value in (config.data or {}).items() if _NAME.match(prefix + key)}
    if source.secretRef is not None:
        name = source.secretRef.name or ""
        secret = sources.secrets.get(name)
        if secret is None:
            if source.secretRef.optional:
                return {}
            raise EnvError(f'secret "{name}" not found')
        return {prefix + key: secret_text(secret, key) or "" for key in secret.data or {} if _NAME.match(prefix + key)}
    return {}


def _from_reference(
    pod: core_v1.Pod,
    container: core_v1.Container,
    variable: core_v1.EnvVar,
    sources: Sources,
    facts: PodFacts,
    namespace: str,
) -> str | None:
    origin = variable.valueFrom
    assert origin is not None
    try:
        if origin.fieldRef is not None:
            return field_value(pod, origin.fieldRef.fieldPath, facts)
        if origin.resourceFieldRef is not None:
            return resource_value(origin.resourceFieldRef, _named(pod, origin.resourceFieldRef, container), facts)
    except DownwardError as error:
        raise EnvError(str(error)) from error
    if origin.configMapKeyRef is not None:
        chosen = origin.configMapKeyRef
        config = sources.config_maps.get(chosen.name or "")
        if config is None:
            if chosen.optional:
                return None
            raise EnvError(f'configmap "{chosen.name}" not found')
        value = (config.data or {}).get(chosen.key)
        if value is None and not chosen.optional:
            raise EnvError(f"couldn't find key {chosen.key} in ConfigMap {namespace}/{chosen.name}")
        return value
    if origin.secretKeyRef is not None:
        wanted = origin.secretKeyRef
        secret = sources.secrets.get(wanted.name or "")
        if secret is None:
            if wanted.optional:
                return None
            raise EnvError(f'secret "{wanted.name}" not found')
        value = secret_text(secret, wanted.key)
        if value is None and not wanted.optional:
            raise EnvError(f"couldn't find key {wanted.key} in Secret {namespace}/{wanted.name}")
        return value
    return None


def _named(pod: core_v1.Pod, selector: core_v1.ResourceFieldSelector, fallback: core_v1.Container) -> core_v1.Container:
    if not selector.containerName or pod.spec is None:
        return fallback
    everyone: list[core_v1.Container] = [*pod.spec.containers, *(pod.spec.initContainers or ())]
    for each in everyone:
        if each.name == selector.containerName:
            return each
    raise DownwardError(f"container {selector.containerName} not found")


def service_variables(
    services: Iterable[core_v1.Service], namespace: str, *, links: bool, master_namespace: str = "default"
) -> dict[str, str]:
    """Docker-style variables of the namespace's Services; `kubernetes` of the default namespace always."""
    chosen: dict[str, core_v1.Service] = {}
    for service in services:
        meta, spec = service.metadata, service.spec
        if meta is None or spec is None or not spec.clusterIP or spec.clusterIP == "None":
            continue
        name = meta.name or ""
        if meta.namespace == namespace and (links or name == "kubernetes"):
            chosen[name] = service
        elif meta.namespace == master_namespace and name == "kubernetes":
            chosen.setdefault(name, service)
    result: dict[str, str] = {}
    for name in sorted(chosen):
        spec = chosen[name].spec
        if spec is not None:
            result.update(_service(name, spec.clusterIP or "", spec.ports or ()))
    return result


def _service(name: str, address: str, ports: Sequence[core_v1.ServicePort]) -> dict[str, str]:
    stem = name.upper().replace("-", "_")
    result = {f"{stem}_SERVICE_HOST": address}
    if not ports:
        return result
    result[f"{stem}_SERVICE_PORT"] = str(ports[0].port)
    for port in ports:
        if port.name:
            result[f"{stem}_SERVICE_PORT_{port.name.upper().replace('-', '_')}"] = str(port.port)
    host = f"[{address}]" if ":" in address else address
    for index, port in enumerate(ports):
        protocol = port.protocol or "TCP"
        url = f"{protocol.lower()}://{host}:{port.port}"
        if index == 0:
            result[f"{stem}_PORT"] = url
        lead = f"{stem}_PORT_{port.port}_{protocol}"
        result[lead] = url
        result[f"{lead}_PROTO"] = protocol.lower()
        result[f"{lead}_PORT"] = str(port.port)
        result[f"{lead}_ADDR"] = address
    return result
