"""Pods and pod templates as a whole.

Owns the rules of PodSpec; containers, volumes and scheduling have modules of their own. Called by the pod strategy and
for the template of every workload. Hot path.
"""

from typing import Any

from apiserver.registry.validation import names
from apiserver.registry.validation.containers import (
    forbid_running,
    validate_container,
    validate_running,
)
from apiserver.registry.validation.fields import MAX_INT32, check_enum, check_range, invalid_each, unsupported
from apiserver.registry.validation.metadata import validate_annotations, validate_labels
from apiserver.registry.validation.resources import check_quantity, check_requirements, check_resource_name
from apiserver.registry.validation.scheduling import (
    validate_affinity,
    validate_gates,
    validate_spread,
    validate_tolerations,
)
from apiserver.registry.validation.security import validate_os, validate_pod_security
from apiserver.registry.validation.volumes import validate_volumes
from machinery.field_errors import FieldError

Obj = dict[str, Any]

_RESTART_POLICIES = ("Always", "OnFailure", "Never")
_DNS_POLICIES = ("ClusterFirstWithHostNet", "ClusterFirst", "Default", "None")


def validate_template(template: Obj, path: str) -> list[FieldError]:
    """A PodTemplateSpec: labels and annotations, and a spec that could run."""
    meta = template.get("metadata") or {}
    errors = validate_labels(meta.get("labels"), f"{path}.labels")
    errors += validate_annotations(meta.get("annotations"), f"{path}.annotations")
    spec = template.get("spec") or {}
    errors += validate_pod_spec(spec, f"{path}.spec")
    if spec.get("ephemeralContainers"):
        detail = "ephemeral containers not allowed in pod template"
        errors.append(FieldError.forbidden(f"{path}.spec.ephemeralContainers", detail))
    return errors


def validate_pod_spec(spec: Obj, path: str) -> list[FieldError]:
    """Everything about a PodSpec that needs no other object."""
    errors: list[FieldError] = []
    given = spec.get("volumes")
    volumes: dict[str, Obj] = {}
    if given:
        volumes, errors = validate_volumes(given, f"{path}.volumes")
        if errors:  # mounts of a faulty volume are not told twice
            volumes = {volume.get("name") or "": volume for volume in given}
    grace = spec.get("terminationGracePeriodSeconds", 30)
    errors += _validate_containers(spec, path, volumes, grace)
    errors += _validate_init_containers(spec, path, volumes, grace)
    if ephemeral := spec.get("ephemeralContainers"):
        errors += validate_ephemeral(ephemeral, spec, f"{path}.ephemeralContainers", volumes)
    errors += _validate_host_ports(spec, path)
    policy = spec.get("restartPolicy")
    if policy not in _RESTART_POLICIES:
        errors += check_enum(f"{path}.restartPolicy", policy, _RESTART_POLICIES, required=True)
    policy = spec.get("dnsPolicy")
    if policy not in _DNS_POLICIES:
        errors += check_enum(f"{path}.dnsPolicy", policy, _DNS_POLICIES, required=True)
    if security := spec.get("securityContext"):
        errors += validate_pod_security(security, f"{path}.securityContext")
    if spec.get("shareProcessNamespace") and spec.get("hostPID"):
        detail = "ShareProcessNamespace and HostPID cannot both be enabled"
        errors.append(FieldError.invalid(f"{path}.securityContext.shareProcessNamespace", True, detail))
    for field, check in _PRESENT:
        if value := spec.get(field):
            errors += check(value, f"{path}.{field}")
    if (deadline := spec.get("activeDeadlineSeconds")) is not None:
        errors += check_range(f"{path}.activeDeadlineSeconds", deadline, 1, MAX_INT32)
    if policy == "None" or "dnsConfig" in spec:
        errors += _validate_dns_config(policy, spec.get("dnsConfig"), f"{path}.dnsConfig")
    if spec.get("os"):
        errors += validate_os(spec, path)
    return errors


def _validate_containers(spec: Obj, path: str, volumes: dict[str, Obj], grace: int) -> list[FieldError]:
    containers = spec.get("containers")
    if not containers:
        return [FieldError.required(f"{path}.containers")]
    errors: list[FieldError] = []
    seen: set[str] = set()
    for index, container in enumerate(containers):
        at = f"{path}.containers[{index}]"
        errors += validate_container(container, at, volumes)
        errors += validate_running(container, at, grace)
        name = container.get("name") or ""
        if name and name in seen:
            errors.append(FieldError.duplicate(f"{at}.name", name))
        seen.add(name)
    return errors


def _validate_init_containers(spec: Obj, path: str, volumes: dict[str, Obj], grace: int) -> list[FieldError]:
    containers = spec.get("initContainers")
    if not containers:
        return []
    errors: list[FieldError] = []
    seen = {container.get("name") or "" for container in spec.get("containers") or ()}
    for index, container in enumerate(containers):
        at = f"{path}.initContainers[{index}]"
        errors += validate_container(container, at, volumes)
        name = container.get("name") or ""
        if name and name in seen:
            errors.append(FieldError.duplicate(f"{at}.name", name))
        seen.add(name)
        if container.get("restartPolicy") == "Always":
            errors += validate_running(container, at, grace)
        else:
            errors += forbid_running(container, at)
    return errors


_EPHEMERAL_FORBIDDEN = (
    "ports", "livenessProbe", "readinessProbe", "startupProbe", "lifecycle", "resources", "resizePolicy",
)  # fmt: skip


def validate_ephemeral(containers: list[Obj], spec: Obj, path: str, volumes: dict[str, Obj]) -> list[FieldError]:
    """Ephemeral containers: no ports, probes or resources; a target that exists."""
    errors: list[FieldError] = []
    others = [*(spec.get("containers") or ()), *(spec.get("initContainers") or ())]
    targets = {container.get("name") for container in others}
    seen = set(targets)
    for index, container in enumerate(containers):
        at = f"{path}[{index}]"
        plain = {key: value for key, value in container.items() if key not in _EPHEMERAL_FORBIDDEN}
        errors += validate_container(plain, at, volumes)
        name = container.get("name")
        if name in seen:
            errors.append(FieldError.duplicate(f"{at}.name", name))
        seen.add(name)
        target = container.get("targetContainerName")
        if target and target not in targets:
            errors.append(FieldError.not_found(f"{at}.targetContainerName", target))
        for field in _EPHEMERAL_FORBIDDEN:
            if container.get(field):
                errors.append(FieldError.forbidden(f"{at}.{field}", "cannot be set for an Ephemeral Container"))
        for position, mount in enumerate(container.get("volumeMounts") or ()):
            if mount.get("subPath"):
                where = f"{at}.volumeMounts[{position}].subPath"
                errors.append(FieldError.forbidden(where, "cannot be set for an Ephemeral Container"))
    return errors


def _validate_host_ports(spec: Obj, path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    on_host = spec.get("hostNetwork")
    seen: set[str] = set()
    for field in ("containers", "initContainers"):
        for index, container in enumerate(spec.get(field) or ()):
            for position, port in enumerate(container.get("ports") or ()):
                host = port.get("hostPort")
                if not host:
                    continue
                at = f"{path}.{field}[{index}].ports[{position}].hostPort"
                if on_host and host != port.get("containerPort"):
                    detail = "must match `containerPort` when `hostNetwork` is true"
                    errors.append(FieldError.invalid(at, host, detail))
                if field == "containers":
                    text = f"{port.get('protocol', '')}/{port.get('hostIP', '')}/{host}"
                    if text in seen:
                        errors.append(FieldError.duplicate(at, text))
                    seen.add(text)
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
    for index, search in enumerate(searches):
        bare = search.rstrip(".").replace("_", "-") if search != "." else "a"
        errors += invalid_each(f"{path}.searches[{index}]", search, names.dns_subdomain(bare))
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
        for hostname in alias.get("hostnames") or ():
            errors += invalid_each(f"{path}[{index}].hostnames", hostname, names.dns_subdomain(hostname))
    return errors


def _preemption_policy(value: str, path: str) -> list[FieldError]:
    valid = ("Never", "PreemptLowerPriority")
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
    errors: list[FieldError] = []
    for name, amount in overhead.items():
        errors += check_resource_name(f"{path}[{name}]", name)
        errors += check_quantity(f"{path}[{name}]", name, amount)
    return errors


def _os(value: Obj, path: str) -> list[FieldError]:
    return check_enum(f"{path}.name", value.get("name"), ("linux", "windows"), required=True)


def _pod_level(resources: Obj, path: str) -> list[FieldError]:
    return check_requirements(path, resources, pod_level=True)


def _claims(claims: list[Obj], path: str) -> list[FieldError]:
    """resourceClaims: each of its own name, from one source."""
    errors: list[FieldError] = []
    seen: set[str] = set()
    sources = ("resourceClaimName", "resourceClaimTemplateName")
    for index, claim in enumerate(claims):
        at, name = f"{path}[{index}]", claim.get("name") or ""
        if not name:
            errors.append(FieldError.required(f"{at}.name"))
        elif name in seen:
            errors.append(FieldError.duplicate(f"{at}.name", name))
        else:
            errors += invalid_each(f"{at}.name", name, names.dns_label(name))
            seen.add(name)
        given = [source for source in sources if claim.get(source) is not None]
        shown = {"Name": name, **{f"R{source[1:]}": claim.get(source) for source in sources}}
        if len(given) == 2:
            detail = "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified"
            errors.append(FieldError.invalid(at, shown, detail))
        elif not given:
            detail = "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`"
            errors.append(FieldError.invalid(at, shown, detail))
        for source in given:
            errors += invalid_each(f"{at}.{source}", claim[source], names.dns_subdomain(claim[source]))
    return errors


_PRESENT = (
    ("resourceClaims", _claims),
    ("nodeSelector", validate_labels),
    ("affinity", validate_affinity),
    ("schedulingGates", validate_gates),
    ("serviceAccountName", _subdomain),
    ("nodeName", _subdomain),
    ("hostname", _label),
    ("subdomain", _label),
    ("tolerations", validate_tolerations),
    ("hostAliases", _host_aliases),
    ("priorityClassName", _subdomain),
    ("runtimeClassName", _subdomain),
    ("preemptionPolicy", _preemption_policy),
    ("readinessGates", _readiness_gates),
    ("overhead", _overhead),
    ("topologySpreadConstraints", validate_spread),
    ("os", _os),
    ("resources", _pod_level),
)
