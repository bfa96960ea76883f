"""Pods and pod templates as a whole.

Owns the rules of PodSpec; containers, volumes and scheduling have modules of their own. Called by the pod strategy and
for the template of every workload. Hot path.
"""

from collections.abc import Callable
from typing import Any

from apiserver.registry.validation import names
from apiserver.registry.validation.containers import (
    Surroundings,
    forbid_running,
    validate_container,
    validate_image_text,
    validate_restarts,
    validate_running,
)
from apiserver.registry.validation.fields import MAX_INT32, check_enum, check_range, invalid_each, unsupported
from apiserver.registry.validation.metadata import validate_annotations, validate_labels
from apiserver.registry.validation.pod_annotations import validate_pod_annotations, validate_profile_annotations
from apiserver.registry.validation.pod_resources import validate_claims, validate_pod_resources
from apiserver.registry.validation.resources import check_requirements
from apiserver.registry.validation.scheduling import (
    validate_affinity,
    validate_gates,
    validate_spread,
    validate_tolerations,
)
from apiserver.registry.validation.security import validate_os, validate_pod_security
from apiserver.registry.validation.volumes import validate_volumes
from apiserver.registry.validation.windows import validate_host_processes
from machinery.field_errors import FieldError

Obj = dict[str, Any]
Check = Callable[[Any, str], list[FieldError]]

_HOSTNAME = 64
_RESTART_POLICIES = ("Always", "OnFailure", "Never")
_DNS_POLICIES = ("ClusterFirstWithHostNet", "ClusterFirst", "Default", "None")


def validate_template(template: Obj, path: str) -> list[FieldError]:
    """A PodTemplateSpec: labels and annotations, and a spec that could run."""
    meta, spec = template.get("metadata") or {}, template.get("spec") or {}
    annotations = meta.get("annotations") or {}
    errors = validate_labels(meta.get("labels"), f"{path}.labels")
    errors += validate_annotations(annotations, f"{path}.annotations")
    if annotations:
        errors += validate_pod_annotations(annotations, spec, f"{path}.annotations")
    errors += validate_pod_spec(spec, f"{path}.spec")
    if annotations:
        errors += validate_profile_annotations(annotations, spec, f"{path}.spec")
    if spec.get("ephemeralContainers"):
        detail = "ephemeral containers not allowed in pod template"
        errors.append(FieldError.forbidden(f"{path}.spec.ephemeralContainers", detail))
    return errors


def validate_pod(pod: Obj) -> list[FieldError]:
    """Everything about a real pod, but for its ObjectMeta, that needs no other object."""
    meta, spec = pod["metadata"], pod["spec"]
    errors: list[FieldError] = []
    if annotations := meta.get("annotations"):
        errors += validate_pod_annotations(annotations, spec, "metadata.annotations")
    errors += validate_pod_spec(spec, "spec", meta.get("name") or "")
    if not spec.get("serviceAccountName"):
        for index, volume in enumerate(spec.get("volumes") or ()):
            for position, part in enumerate((volume.get("projected") or {}).get("sources") or ()):
                if part.get("serviceAccountToken") is not None:
                    where = f"spec.volumes[{index}].projected.sources[{position}].serviceAccountToken"
                    detail = "must not be specified when serviceAccountName is not set"
                    errors.append(FieldError.forbidden(where, detail))
    for field in ("containers", "initContainers"):
        for index, container in enumerate(spec.get(field) or ()):
            errors += validate_image_text(container, f"spec.{field}[{index}]")
    return errors


def validate_pod_spec(spec: Obj, path: str, pod: str = "") -> list[FieldError]:
    """Everything about a PodSpec that needs no other object. `pod` is the name of a real pod (not of a template)."""
    errors: list[FieldError] = []
    volumes: dict[str, Obj] = {}
    if given := spec.get("volumes"):
        volumes, errors = validate_volumes(given, f"{path}.volumes", pod)
    claims: list[str] = []
    if asked := spec.get("resourceClaims"):
        errors += validate_claims(asked, f"{path}.resourceClaims")
        claims = sorted({claim["name"] for claim in asked if claim.get("name")})
    policy = spec.get("restartPolicy") or ""
    around = Surroundings(
        volumes, claims, policy, spec.get("hostUsers") is not False, spec.get("terminationGracePeriodSeconds", 30)
    )
    errors += _validate_containers(spec, path, around)
    errors += _validate_init_containers(spec, path, around)
    if ephemeral := spec.get("ephemeralContainers"):
        errors += _validate_ephemeral(ephemeral, spec, f"{path}.ephemeralContainers", around)
    if (resources := spec.get("resources")) is not None:
        errors += validate_pod_resources(spec, resources, f"{path}.resources", claims)
    if spec.get("hostNetwork"):
        errors += _validate_host_network(spec, path, is_pod=bool(pod))
    if policy not in _RESTART_POLICIES:
        errors += check_enum(f"{path}.restartPolicy", policy, _RESTART_POLICIES, required=True)
    policy = spec.get("dnsPolicy")
    if policy not in _DNS_POLICIES:
        errors += check_enum(f"{path}.dnsPolicy", policy, _DNS_POLICIES, required=True)
    if selector := spec.get("nodeSelector"):
        errors += validate_labels(selector, f"{path}.nodeSelector")
    if (security := spec.get("securityContext")) is not None:
        errors += validate_pod_security(security, f"{path}.securityContext", spec)
    if affinity := spec.get("affinity"):
        errors += validate_affinity(affinity, f"{path}.affinity")
    if policy == "None" or "dnsConfig" in spec:
        errors += _validate_dns_config(policy, spec.get("dnsConfig"), f"{path}.dnsConfig")
    for field, check in _LISTS:
        if value := spec.get(field):
            errors += check(value, f"{path}.{field}")
    if _asks_windows(spec):
        errors += validate_host_processes(spec, path)
    if spec.get("hostUsers") is False:
        errors += [
            FieldError.forbidden(f"{path}.{shown}", "when `pod.Spec.HostUsers` is false")
            for field, shown in (("hostNetwork", "hostNetwork"), ("hostPID", "HostPID"), ("hostIPC", "HostIPC"))
            if spec.get(field)
        ]
    for field, check in _PRESENT:
        if value := spec.get(field):
            errors += check(value, f"{path}.{field}")
    if (deadline := spec.get("activeDeadlineSeconds")) is not None:
        errors += check_range(f"{path}.activeDeadlineSeconds", deadline, 1, MAX_INT32)
    for field, check in _PRESENT_LAST:
        if value := spec.get(field):
            errors += check(value, f"{path}.{field}")
    if (override := spec.get("hostnameOverride")) is not None:
        errors += _hostname_override(override, f"{path}.hostnameOverride")
    if (name := spec.get("runtimeClassName")) is not None:
        errors += _subdomain(name, f"{path}.runtimeClassName")
    if spec.get("os") is not None:
        errors += validate_os(spec, path)
    return errors


def _asks_windows(spec: Obj) -> bool:
    return "windowsOptions" in (spec.get("securityContext") or ()) or any(
        "windowsOptions" in (container.get("securityContext") or ())
        for field in ("containers", "initContainers", "ephemeralContainers")
        for container in spec.get(field) or ()
    )


def _validate_containers(spec: Obj, path: str, pod: Surroundings) -> list[FieldError]:
    containers = spec.get("containers")
    if not containers:
        return [FieldError.required(f"{path}.containers")]
    errors: list[FieldError] = []
    seen: set[str] = set()
    for index, container in enumerate(containers):
        at = f"{path}.containers[{index}]"
        errors += validate_container(container, at, pod)
        name = container.get("name") or ""
        if name in seen:
            errors.append(FieldError.duplicate(f"{at}.name", name))
        seen.add(name)
        errors += validate_running(container, at, pod.grace) + validate_restarts(container, at)
    return errors + _host_ports([(f"{path}.containers[{i}]", each) for i, each in enumerate(containers)])


def _validate_init_containers(spec: Obj, path: str, pod: Surroundings) -> list[FieldError]:
    containers = spec.get("initContainers")
    if not containers:
        return []
    errors: list[FieldError] = []
    seen = {container.get("name") or "" for container in spec.get("containers") or ()}
    for index, container in enumerate(containers):
        at = f"{path}.initContainers[{index}]"
        errors += validate_container(container, at, pod)
        name = container.get("name") or ""
        if name in seen:
            errors.append(FieldError.duplicate(f"{at}.name", name))
        elif name:
            seen.add(name)
        # They run one after the other; upstream looks at each as if it were the first.
        errors += _host_ports([(f"{path}.initContainers[0]", container)])
        if container.get("restartPolicy") == "Always":
            errors += validate_running(container, at, pod.grace)
        else:
            errors += forbid_running(container, at)
        errors += validate_restarts(container, at)
    return errors


def _host_ports(containers: list[tuple[str, Obj]]) -> list[FieldError]:
    """No two of them want the same port of the host."""
    errors: list[FieldError] = []
    seen: set[str] = set()
    for path, container in containers:
        for position, port in enumerate(container.get("ports") or ()):
            if not (host := port.get("hostPort")):
                continue
            text = f"{port.get('protocol') or ''}/{port.get('hostIP') or ''}/{host}"
            if text in seen:
                errors.append(FieldError.duplicate(f"{path}.ports[{position}].hostPort", text))
            seen.add(text)
    return errors


_EPHEMERAL_FORBIDDEN = (
    "ports", "resources", "resizePolicy", "restartPolicy", "restartPolicyRules", "livenessProbe", "readinessProbe",
    "startupProbe", "lifecycle",
)  # fmt: skip
_NOT_EPHEMERAL = "cannot be set for an Ephemeral Container"


def _validate_ephemeral(containers: list[Obj], spec: Obj, path: str, pod: Surroundings) -> list[FieldError]:
    """Ephemeral containers: no ports, probes or resources; a target that exists."""
    errors: list[FieldError] = []
    others = [*(spec.get("containers") or ()), *(spec.get("initContainers") or ())]
    targets = {container.get("name") or "" for container in others}
    seen = set(targets)
    for index, container in enumerate(containers):
        at = f"{path}[{index}]"
        errors += validate_container(container, at, pod) + validate_image_text(container, at)
        name = container.get("name") or ""
        if name in seen:
            errors.append(FieldError.duplicate(f"{at}.name", name))
        seen.add(name)
        target = container.get("targetContainerName")
        if target and target not in targets:
            errors.append(FieldError.not_found(f"{at}.targetContainerName", target))
        for field in _EPHEMERAL_FORBIDDEN:
            if container.get(field) not in (None, [], {}, ""):
                errors.append(FieldError.forbidden(f"{at}.{field}", _NOT_EPHEMERAL))
        for position, mount in enumerate(container.get("volumeMounts") or ()):
            errors += [
                FieldError.forbidden(f"{at}.volumeMounts[{position}].{field}", _NOT_EPHEMERAL)
                for field in ("subPath", "subPathExpr")
                if mount.get(field)
            ]
    return errors


def _validate_host_network(spec: Obj, path: str, *, is_pod: bool) -> list[FieldError]:
    """On the host's network a container port is a host port; templates may leave that to the pod's defaults."""
    errors: list[FieldError] = []
    for index, container in enumerate(spec.get("containers") or ()):
        for position, port in enumerate(container.get("ports") or ()):
            host = port.get("hostPort") or 0
            if (is_pod or host) and host != (port.get("containerPort") or 0):
                at = f"{path}.containers[{index}].ports[{position}].hostPort"
                detail = "must match `containerPort` when `hostNetwork` is true"
                errors.append(FieldError.invalid(at, host, detail))
    return errors


def _validate_dns_config(policy: Any, config: Obj | None, path: str) -> list[FieldError]:
    if policy == "None":
        if config is None:
            return [FieldError.required(path, "must provide `dnsConfig` when `dnsPolicy` is None")]
        if not config.get("nameservers"):
            detail = "must provide at least one DNS nameserver when `dnsPolicy` is None"
            return [FieldError.required(f"{path}.nameservers", detail)]
    if not config:
        return []
    errors: list[FieldError] = []
    servers, searches = config.get("nameservers") or [], config.get("searches") or []
    if len(servers) > 3:
        errors.append(FieldError.invalid(f"{path}.nameservers", servers, "must not have more than 3 nameservers"))
    for index, server in enumerate(servers):
        errors += invalid_each(f"{path}.nameservers[{index}]", server, names.ip(server))
    if len(searches) > 32:
        errors.append(FieldError.invalid(f"{path}.searches", searches, "must not have more than 32 search paths"))
    if len(" ".join(searches)) > 2048:
        detail = "must not have more than 2048 characters (including spaces) in the search list"
        errors.append(FieldError.invalid(f"{path}.searches", searches, detail))
    for index, search in enumerate(searches):
        if search != ".":
            bare = search.removesuffix(".")
            errors += invalid_each(f"{path}.searches[{index}]", bare, names.underscored_subdomain(bare))
    for index, option in enumerate(config.get("options") or ()):
        if not option.get("name"):
            errors.append(FieldError.required(f"{path}.options[{index}]", "must not be empty"))
    return errors


def _subdomain(value: str, path: str) -> list[FieldError]:
    return invalid_each(path, value, names.dns_subdomain(value))


def _label(value: str, path: str) -> list[FieldError]:
    return invalid_each(path, value, names.dns_label(value))


def _host_aliases(aliases: list[Obj], path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    for index, alias in enumerate(aliases):
        address = alias.get("ip") or ""
        errors += invalid_each(f"{path}[{index}].ip", address, names.ip(address))
        for position, hostname in enumerate(alias.get("hostnames") or ()):
            errors += invalid_each(f"{path}[{index}].hostnames[{position}]", hostname, names.dns_subdomain(hostname))
    return errors


def _preemption_policy(value: str, path: str) -> list[FieldError]:
    valid = ("PreemptLowerPriority", "Never")
    return [] if value in valid else [unsupported(path, value, valid)]


def _readiness_gates(gates: list[Obj], path: str) -> list[FieldError]:
    return [
        error
        for index, gate in enumerate(gates)
        for error in invalid_each(
            f"{path}[{index}].conditionType",
            gate.get("conditionType") or "",
            names.qualified_name(gate.get("conditionType") or ""),
        )
    ]


def _overhead(overhead: dict[str, Any], path: str) -> list[FieldError]:
    """Upstream checks overhead as if it were limits."""
    return check_requirements(path, {"limits": overhead})


def _hostname_override(value: str, path: str) -> list[FieldError]:
    errors = invalid_each(path, value, names.dns_subdomain(value))
    return errors + ([FieldError.too_long(path, _HOSTNAME)] if len(value) > _HOSTNAME else [])


_LISTS: tuple[tuple[str, Check], ...] = (
    ("readinessGates", _readiness_gates),
    ("schedulingGates", validate_gates),
    ("topologySpreadConstraints", validate_spread),
)
_PRESENT: tuple[tuple[str, Check], ...] = (
    ("serviceAccountName", _subdomain),
    ("nodeName", _subdomain),
)
_PRESENT_LAST: tuple[tuple[str, Check], ...] = (
    ("hostname", _label),
    ("subdomain", _label),
    ("tolerations", validate_tolerations),
    ("hostAliases", _host_aliases),
    ("priorityClassName", _subdomain),
    ("preemptionPolicy", _preemption_policy),
    ("overhead", _overhead),
)
