"""Containers: names, images, ports, environment, mounts, probes, lifecycle, security context.

Owns the rules of one container of any role. Called by the pod spec validation. Hot path: nothing is computed for absent
fields.
"""

from collections.abc import Mapping
from typing import Any

from apiserver.registry.validation import names
from apiserver.registry.validation.fields import (
    check_descending_path,
    check_enum,
    check_not_negative,
    check_port_or_name,
    invalid_each,
    unsupported,
)
from apiserver.registry.validation.resources import check_requirements
from apiserver.registry.validation.security import validate_container_security
from machinery.field_errors import FieldError

Obj = dict[str, Any]
ID_RANGE = "must be between 0 and 2147483647, inclusive"
SIDECAR_ONLY = "may not be set for init containers without restartPolicy=Always"

_PROTOCOLS = ("SCTP", "TCP", "UDP")
_PULL_POLICIES = ("Always", "IfNotPresent", "Never")
_MESSAGE_POLICIES = ("FallbackToLogsOnError", "File")
_RESTART_POLICIES = ("Always", "Never", "OnFailure")
_PROPAGATION = ("Bidirectional", "HostToContainer", "None")
_HANDLERS = ("exec", "httpGet", "tcpSocket", "grpc")
_HOOKS = ("exec", "httpGet", "tcpSocket", "sleep")

_ENV_FIELDS = frozenset(
    {
        "metadata.name", "metadata.namespace", "metadata.uid", "spec.nodeName", "spec.serviceAccountName",
        "status.hostIP", "status.hostIPs", "status.podIP", "status.podIPs",
    }
)  # fmt: skip
_VOLUME_FIELDS = frozenset(
    {"metadata.name", "metadata.namespace", "metadata.labels", "metadata.annotations", "metadata.uid"}
)
_KNOWN_FIELDS = _ENV_FIELDS | _VOLUME_FIELDS | {"spec.restartPolicy", "spec.schedulerName", "spec.host", "status.phase"}
_RESOURCE_FIELDS = frozenset(
    f"{kind}.{name}" for kind in ("limits", "requests") for name in ("cpu", "memory", "ephemeral-storage")
)


def validate_container(container: Obj, path: str, volumes: Mapping[str, Obj]) -> list[FieldError]:
    """What holds for containers of every role; `volumes` are the pod's, by name."""
    errors: list[FieldError] = []
    name = container.get("name")
    if not name:
        errors.append(FieldError.required(f"{path}.name"))
    elif texts := names.dns_label(name):
        errors += invalid_each(f"{path}.name", name, texts)
    if not container.get("image"):
        errors.append(FieldError.required(f"{path}.image"))
    elif container["image"].strip() != container["image"]:
        detail = "must not have leading or trailing whitespace"
        errors.append(FieldError.invalid(f"{path}.image", container["image"], detail))
    policy = container.get("terminationMessagePolicy")
    if policy != "File":
        errors += check_enum(f"{path}.terminationMessagePolicy", policy, _MESSAGE_POLICIES, required=True)
    if ports := container.get("ports"):
        errors += _validate_ports(ports, f"{path}.ports")
    if env := container.get("env"):
        errors += validate_env(env, f"{path}.env")
    if sources := container.get("envFrom"):
        errors += _validate_env_from(sources, f"{path}.envFrom")
    if mounts := container.get("volumeMounts"):
        errors += _validate_mounts(container, mounts, f"{path}.volumeMounts", volumes)
    if devices := container.get("volumeDevices"):
        errors += _validate_devices(devices, f"{path}.volumeDevices", volumes)
    policy = container.get("imagePullPolicy")
    if policy not in _PULL_POLICIES:
        errors += check_enum(f"{path}.imagePullPolicy", policy, _PULL_POLICIES, required=True)
    if resources := container.get("resources"):
        errors += check_requirements(f"{path}.resources", resources)
    if resizes := container.get("resizePolicy"):
        errors += _validate_resize_policy(resizes, f"{path}.resizePolicy")
    if security := container.get("securityContext"):
        errors += validate_container_security(security, f"{path}.securityContext")
    if restart := container.get("restartPolicy"):
        errors += check_enum(f"{path}.restartPolicy", restart, _RESTART_POLICIES)
    return errors


def validate_running(container: Obj, path: str, grace: int) -> list[FieldError]:
    """Probes and hooks of a container that keeps running: a regular one or a sidecar."""
    errors: list[FieldError] = []
    if lifecycle := container.get("lifecycle"):
        for hook in ("postStart", "preStop"):
            if (handler := lifecycle.get(hook)) is not None:
                errors += _validate_handler(handler, f"{path}.lifecycle.{hook}", _HOOKS, grace)
    if probe := container.get("livenessProbe"):
        errors += _validate_probe(probe, f"{path}.livenessProbe", grace)
        errors += _only_one_success(probe, f"{path}.livenessProbe")
    if probe := container.get("readinessProbe"):
        errors += _validate_probe(probe, f"{path}.readinessProbe", grace)
        if (own := probe.get("terminationGracePeriodSeconds")) is not None:
            detail = "must not be set for readinessProbes"
            errors.append(FieldError.invalid(f"{path}.readinessProbe.terminationGracePeriodSeconds", own, detail))
    if probe := container.get("startupProbe"):
        errors += _validate_probe(probe, f"{path}.startupProbe", grace)
        errors += _only_one_success(probe, f"{path}.startupProbe")
    return errors


def forbid_running(container: Obj, path: str) -> list[FieldError]:
    """Init containers that end have neither hooks nor probes."""
    fields = ("lifecycle", "livenessProbe", "readinessProbe", "startupProbe")
    return [FieldError.forbidden(f"{path}.{field}", SIDECAR_ONLY) for field in fields if container.get(field)]


def _only_one_success(probe: Obj, path: str) -> list[FieldError]:
    threshold = probe.get("successThreshold", 1)
    return [] if threshold == 1 else [FieldError.invalid(f"{path}.successThreshold", threshold, "must be 1")]


def _validate_probe(probe: Obj, path: str, grace: int) -> list[FieldError]:
    errors = _validate_handler(probe, path, _HANDLERS, grace)
    for field in ("initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"):
        value = probe.get(field)
        if value is not None and value < 0:
            errors += check_not_negative(f"{path}.{field}", value)
    own = probe.get("terminationGracePeriodSeconds")
    if own is not None and own <= 0:
        errors.append(FieldError.invalid(f"{path}.terminationGracePeriodSeconds", own, "must be greater than 0"))
    return errors


def _validate_handler(handler: Obj, path: str, kinds: tuple[str, ...], grace: int) -> list[FieldError]:
    errors: list[FieldError] = []
    count = 0
    for kind in kinds:
        action = handler.get(kind)
        if action is None:
            continue
        count += 1
        at = f"{path}.{kind}"
        if count > 1:
            errors.append(FieldError.forbidden(at, "may not specify more than 1 handler type"))
        elif kind == "exec":
            if not action.get("command"):
                errors.append(FieldError.required(f"{at}.command"))
        elif kind == "httpGet":
            errors += _validate_http_get(action, at)
        elif kind == "tcpSocket":
            errors += check_port_or_name(f"{at}.port", action.get("port"))
        elif kind == "grpc":
            errors += invalid_each(f"{at}.port", action.get("port", 0), names.port_number(action.get("port", 0)))
        elif kind == "sleep":
            seconds = action.get("seconds", 0)
            if not 0 <= seconds <= grace:
                detail = f"must be non-negative and less than terminationGracePeriodSeconds ({grace})"
                errors.append(FieldError.invalid(at, seconds, detail))
    if not count:
        errors.append(FieldError.required(path, "must specify a handler type"))
    return errors


def _validate_http_get(action: Obj, path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    if not action.get("path"):
        errors.append(FieldError.required(f"{path}.path"))
    errors += check_port_or_name(f"{path}.port", action.get("port"))
    if action.get("scheme") not in ("HTTP", "HTTPS"):
        errors.append(unsupported(f"{path}.scheme", action.get("scheme") or "", ("HTTP", "HTTPS")))
    for header in action.get("httpHeaders") or ():
        name = header.get("name") or ""
        errors += invalid_each(f"{path}.httpHeaders", name, names.http_header(name))
    return errors


def _validate_ports(ports: list[Obj], path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    seen: set[str] = set()
    for index, port in enumerate(ports):
        at = f"{path}[{index}]"
        if name := port.get("name"):
            if texts := names.port_name(name):
                errors += invalid_each(f"{at}.name", name, texts[:1])
            elif name in seen:
                errors.append(FieldError.duplicate(f"{at}.name", name))
            seen.add(name)
        number = port.get("containerPort") or 0
        if number == 0:
            errors.append(FieldError.required(f"{at}.containerPort"))
        elif not 1 <= number <= 65535:
            errors += invalid_each(f"{at}.containerPort", number, names.port_number(number))
        host = port.get("hostPort")
        if host and not 1 <= host <= 65535:
            errors += invalid_each(f"{at}.hostPort", host, names.port_number(host))
        protocol = port.get("protocol")
        if protocol not in _PROTOCOLS:
            errors += check_enum(f"{at}.protocol", protocol, _PROTOCOLS, required=True)
    return errors


def validate_env(env: list[Obj], path: str) -> list[FieldError]:
    """Environment variables."""
    errors: list[FieldError] = []
    for index, variable in enumerate(env):
        name = variable.get("name")
        if not name:
            errors.append(FieldError.required(f"{path}[{index}].name"))
        elif texts := names.env_name(name):
            errors += invalid_each(f"{path}[{index}].name", name, texts)
        if (source := variable.get("valueFrom")) is not None:
            errors += _validate_value_from(variable, source, f"{path}[{index}].valueFrom")
    return errors


def _validate_value_from(variable: Obj, source: Obj, path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    count = 0
    if (field := source.get("fieldRef")) is not None:
        count += 1
        errors += validate_field_ref(field, f"{path}.fieldRef", _ENV_FIELDS)
    if (resource := source.get("resourceFieldRef")) is not None:
        count += 1
        errors += validate_resource_field(resource, f"{path}.resourceFieldRef", in_volume=False)
    for kind in ("configMapKeyRef", "secretKeyRef"):
        if (key := source.get(kind)) is not None:
            count += 1
            errors += _validate_key_ref(key, f"{path}.{kind}")
    if source.get("fileKeyRef") is not None:
        count += 1
    if not count:
        detail = (
            "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`"
        )
        errors.append(FieldError.invalid(path, "", detail))
    elif variable.get("value"):
        errors.append(FieldError.invalid(path, "", "may not be specified when `value` is not empty"))
    elif count > 1:
        errors.append(FieldError.invalid(path, "", "may not have more than one field specified at a time"))
    return errors


def _validate_key_ref(reference: Obj, path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    if not reference.get("name"):
        errors.append(FieldError.required(f"{path}.name"))
    key = reference.get("key")
    if not key:
        errors.append(FieldError.required(f"{path}.key"))
    else:
        errors += invalid_each(f"{path}.key", key, names.config_key(key))
    return errors


def validate_field_ref(reference: Obj, path: str, allowed: frozenset[str] = _VOLUME_FIELDS) -> list[FieldError]:
    """A downward API field, optionally one key of labels or annotations."""
    if not reference.get("apiVersion"):
        return [FieldError.required(f"{path}.apiVersion")]
    field = reference.get("fieldPath") or ""
    if not field:
        return [FieldError.required(f"{path}.fieldPath")]
    at = f"{path}.fieldPath"
    if field in allowed:
        return []
    base, bracket, rest = field.partition("['")
    if bracket and rest.endswith("']") and base in ("metadata.labels", "metadata.annotations"):
        key = rest[:-2]
        checked = key.lower() if base == "metadata.annotations" else key
        return invalid_each(at, key, names.qualified_name(checked))
    if field not in _KNOWN_FIELDS:
        detail = f"error converting fieldPath: field label not supported: {field}"
        return [FieldError.invalid(at, field, detail)]
    return [unsupported(at, field, sorted(allowed))]


def validate_resource_field(reference: Obj, path: str, *, in_volume: bool) -> list[FieldError]:
    """A container's resource as a value."""
    if in_volume and not reference.get("containerName"):
        return [FieldError.required(f"{path}.containerName")]
    resource = reference.get("resource")
    if not resource:
        return [FieldError.required(f"{path}.resource")]
    if resource not in _RESOURCE_FIELDS and ".hugepages-" not in resource:
        return [unsupported(f"{path}.resource", resource, sorted(_RESOURCE_FIELDS))]
    return []


def _validate_env_from(sources: list[Obj], path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    for index, source in enumerate(sources):
        at = f"{path}[{index}]"
        if prefix := source.get("prefix"):
            errors += invalid_each(f"{at}.prefix", prefix, names.env_name(prefix))
        kinds = [kind for kind in ("configMapRef", "secretRef") if source.get(kind) is not None]
        for kind in kinds:
            if not source[kind].get("name"):
                errors.append(FieldError.required(f"{at}.{kind}.name"))
        if not kinds:
            errors.append(FieldError.invalid(at, "", "must specify one of: `configMapRef` or `secretRef`"))
        elif len(kinds) > 1:
            errors.append(FieldError.invalid(at, "", "may not have more than one field specified at a time"))
    return errors


def _validate_mounts(container: Obj, mounts: list[Obj], path: str, volumes: Mapping[str, Obj]) -> list[FieldError]:
    errors: list[FieldError] = []
    seen: set[str] = set()
    for index, mount in enumerate(mounts):
        name = mount.get("name")
        if not name:
            errors.append(FieldError.required(f"{path}[{index}].name"))
        elif name not in volumes:
            errors.append(FieldError.not_found(f"{path}[{index}].name", name))
        where = mount.get("mountPath")
        if not where:
            errors.append(FieldError.required(f"{path}[{index}].mountPath"))
        elif where in seen:
            errors.append(FieldError.invalid(f"{path}[{index}].mountPath", where, "must be unique"))
        else:
            seen.add(where)
        if len(mount) > 2:
            errors += _validate_mount_options(container, mount, f"{path}[{index}]")
    return errors


def _validate_mount_options(container: Obj, mount: Obj, path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    if part := mount.get("subPath"):
        errors += check_descending_path(f"{path}.subPath", part)
    if expression := mount.get("subPathExpr"):
        if part:
            detail = "subPathExpr and subPath are mutually exclusive"
            errors.append(FieldError.invalid(f"{path}.subPathExpr", expression, detail))
        errors += check_descending_path(f"{path}.subPathExpr", expression)
    if propagation := mount.get("mountPropagation"):
        errors += check_enum(f"{path}.mountPropagation", propagation, _PROPAGATION)
        privileged = (container.get("securityContext") or {}).get("privileged")
        if propagation == "Bidirectional" and not privileged:
            detail = "Bidirectional mount propagation is available only to privileged containers"
            errors.append(FieldError.forbidden(f"{path}.mountPropagation", detail))
    recursive = mount.get("recursiveReadOnly")
    if recursive in ("Enabled", "IfPossible") and not mount.get("readOnly"):
        detail = "may only be specified when readOnly is true"
        errors.append(FieldError.forbidden(f"{path}.recursiveReadOnly", detail))
    elif recursive:
        errors += check_enum(f"{path}.recursiveReadOnly", recursive, ("Disabled", "Enabled", "IfPossible"))
    return errors


def _validate_devices(devices: list[Obj], path: str, volumes: Mapping[str, Obj]) -> list[FieldError]:
    errors: list[FieldError] = []
    for index, device in enumerate(devices):
        at = f"{path}[{index}]"
        name, where = device.get("name"), device.get("devicePath")
        if not name:
            errors.append(FieldError.required(f"{at}.name"))
        elif name not in volumes:
            errors.append(FieldError.not_found(f"{at}.name", name))
        if not where:
            errors.append(FieldError.required(f"{at}.devicePath"))
    return errors


def _validate_resize_policy(policies: list[Obj], path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    seen: set[str] = set()
    for policy in policies:
        name = policy.get("resourceName") or ""
        if name in seen:
            errors.append(FieldError.duplicate(path, name))
        seen.add(name)
        if name not in ("cpu", "memory"):
            errors.append(unsupported(path, name, ("cpu", "memory")))
        restart = policy.get("restartPolicy")
        if not restart:
            errors.append(FieldError.required(path))
        elif restart not in ("NotRequired", "RestartContainer"):
            errors.append(unsupported(path, restart, ("NotRequired", "RestartContainer")))
    return errors
