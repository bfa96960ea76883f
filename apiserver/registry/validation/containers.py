"""Containers: names, images, ports, environment, mounts, probes, lifecycle, security context.

Owns the rules of one container of any role. Called by the pod spec validation. Hot path: nothing is computed for absent
fields.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from apiserver.registry.validation import names
from apiserver.registry.validation.field_refs import ENV_FIELDS, validate_field_ref, validate_resource_field
from apiserver.registry.validation.fields import (
    check_enum,
    check_not_negative,
    check_port_or_name,
    invalid_each,
    unsupported,
)
from apiserver.registry.validation.mounts import validate_devices, validate_mounts
from apiserver.registry.validation.resources import check_requirements
from apiserver.registry.validation.security import validate_container_security
from apiserver.registry.validation.volume_sources import check_local_path
from machinery.field_errors import FieldError

Obj = dict[str, Any]
SIDECAR_ONLY = "may not be set for init containers without restartPolicy=Always"

_PROTOCOLS = ("SCTP", "TCP", "UDP")
_PULL_POLICIES = ("Always", "IfNotPresent", "Never")
_MESSAGE_POLICIES = ("File", "FallbackToLogsOnError")
_RESTART_POLICIES = ("Always", "Never", "OnFailure")
_RULE_ACTIONS = ("Restart", "RestartAllContainers")
_MAX_RULES, _MAX_CODES = 20, 255
_HANDLERS = ("exec", "httpGet", "tcpSocket", "grpc")
_HOOKS = ("exec", "httpGet", "tcpSocket", "sleep")


class Surroundings(NamedTuple):
    """What a container's rules have to know of its pod."""

    volumes: Mapping[str, Obj]
    """The pod's faultless volumes, by name."""
    claims: Sequence[str]
    """The names of its resource claims, sorted."""
    restart_policy: str
    host_users: bool
    grace: int


def validate_container(container: Obj, path: str, pod: Surroundings) -> list[FieldError]:
    """What holds for containers of every role."""
    errors: list[FieldError] = []
    name = container.get("name")
    if not name:
        errors.append(FieldError.required(f"{path}.name"))
    elif texts := names.dns_label(name):
        errors += invalid_each(f"{path}.name", name, texts)
    if not container.get("image"):
        errors.append(FieldError.required(f"{path}.image"))
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
        errors += validate_mounts(container, mounts, f"{path}.volumeMounts", pod.volumes)
    if devices := container.get("volumeDevices"):
        errors += validate_devices(container, devices, f"{path}.volumeDevices", pod.volumes)
    policy = container.get("imagePullPolicy")
    if policy not in _PULL_POLICIES:
        errors += check_enum(f"{path}.imagePullPolicy", policy, _PULL_POLICIES, required=True)
    if resources := container.get("resources"):
        errors += check_requirements(f"{path}.resources", resources, pod.claims)
    if resizes := container.get("resizePolicy"):
        errors += _validate_resize_policy(resizes, f"{path}.resizePolicy", pod.restart_policy)
    if security := container.get("securityContext"):
        errors += validate_container_security(security, f"{path}.securityContext", pod.host_users)
    return errors


def validate_restarts(container: Obj, path: str) -> list[FieldError]:
    """A container's own restartPolicy, and its rules for certain exit codes."""
    restart, rules = container.get("restartPolicy"), container.get("restartPolicyRules") or []
    errors = check_enum(f"{path}.restartPolicy", restart, _RESTART_POLICIES)
    if rules and restart is None:
        detail = "must specify restartPolicy when restart rules are used"
        errors.append(FieldError.required(f"{path}.restartPolicy", detail))
    if len(rules) > _MAX_RULES:
        errors.append(FieldError.too_many(f"{path}.restartPolicyRules", len(rules), _MAX_RULES))
    for index, rule in enumerate(rules):
        at, codes = f"{path}.restartPolicyRules[{index}]", rule.get("exitCodes")
        if (action := rule.get("action") or "") not in _RULE_ACTIONS:
            errors.append(unsupported(f"{at}.action", action, _RULE_ACTIONS))
        if codes is None:
            errors.append(FieldError.required(f"{at}.exitCodes", "must be specified"))
            continue
        if (operator := codes.get("operator") or "") not in ("In", "NotIn"):
            errors.append(unsupported(f"{at}.exitCodes.operator", operator, ("In", "NotIn")))
        if len(values := codes.get("values") or ()) > _MAX_CODES:
            errors.append(FieldError.too_many(f"{at}.exitCodes.values", len(values), _MAX_CODES))
    return errors


def validate_image_text(container: Obj, path: str) -> list[FieldError]:
    """Templates may hold images that are no image yet; pods may not."""
    image = container.get("image") or ""
    if image.strip() == image:
        return []
    return [FieldError.invalid(f"{path}.image", image, "must not have leading or trailing whitespace")]


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
    return [
        FieldError.forbidden(f"{path}.{field}", SIDECAR_ONLY) for field in fields if container.get(field) is not None
    ]


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
                errors += invalid_each(f"{at}.name", name, texts)
            elif name in seen:
                errors.append(FieldError.duplicate(f"{at}.name", name))
            else:
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
        errors += validate_field_ref(field, f"{path}.fieldRef", ENV_FIELDS)
    if (resource := source.get("resourceFieldRef")) is not None:
        count += 1
        errors += validate_resource_field(resource, f"{path}.resourceFieldRef", in_volume=False)
    for kind in ("configMapKeyRef", "secretKeyRef"):
        if (key := source.get(kind)) is not None:
            count += 1
            errors += _validate_key_ref(key, f"{path}.{kind}")
    if (key := source.get("fileKeyRef")) is not None:
        count += 1
        errors += _validate_file_key(key, f"{path}.fileKeyRef")
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
    name, key = reference.get("name") or "", reference.get("key")
    errors = invalid_each(f"{path}.name", name, names.dns_subdomain(name))
    if not key:
        errors.append(FieldError.required(f"{path}.key"))
    else:
        errors += invalid_each(f"{path}.key", key, names.config_key(key))
    return errors


def _validate_file_key(reference: Obj, path: str) -> list[FieldError]:
    fields = ("key", "volumeName", "path")
    errors = [FieldError.required(f"{path}.{field}") for field in fields if not reference.get(field)]
    return errors + check_local_path(f"{path}.path", reference.get("path") or "")


def _validate_env_from(sources: list[Obj], path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    for index, source in enumerate(sources):
        at = f"{path}[{index}]"
        if prefix := source.get("prefix"):
            errors += invalid_each(f"{at}.prefix", prefix, names.env_name(prefix))
        kinds = [kind for kind in ("configMapRef", "secretRef") if source.get(kind) is not None]
        for kind in kinds:
            if not (name := source[kind].get("name")):
                errors.append(FieldError.required(f"{at}.{kind}.name"))
            else:
                errors += invalid_each(f"{at}.{kind}.name", name, names.dns_subdomain(name, True))
        # Upstream names the list here, not its element.
        if not kinds:
            errors.append(FieldError.invalid(path, "", "must specify one of: `configMapRef` or `secretRef`"))
        elif len(kinds) > 1:
            errors.append(FieldError.invalid(path, "", "may not have more than one field specified at a time"))
    return errors


def _validate_resize_policy(policies: list[Obj], path: str, pod_restart: str) -> list[FieldError]:
    errors: list[FieldError] = []
    seen: set[str] = set()
    for index, policy in enumerate(policies):
        name = policy.get("resourceName") or ""
        if name in seen:
            errors.append(FieldError.duplicate(f"{path}[{index}]", name))
        seen.add(name)
        restart = policy.get("restartPolicy") or ""
        # Upstream names the list here, not its element.
        errors += check_enum(path, name, ("cpu", "memory"), required=True)
        errors += check_enum(path, restart, ("NotRequired", "RestartContainer"), required=True)
        if pod_restart == "Never" and restart != "NotRequired":
            detail = "must be 'NotRequired' when `restartPolicy` is 'Never'"
            errors.append(FieldError.invalid(path, restart, detail))
    return errors
