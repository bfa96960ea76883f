"""The single rules of the Pod Security Standards, with upstream's reasons and details.

Each check looks at a pod's metadata and spec and returns what it forbids, or None. Pure; `levels` knows which check
holds in which level and version.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, NamedTuple

Obj = Mapping[str, Any]


class Violation(NamedTuple):
    """`privileged (container "a" must not …)`."""

    reason: str
    detail: str


Check = Callable[[Obj, Obj], Violation | None]

APPARMOR_PREFIX = "container.apparmor.security.beta.kubernetes.io/"
SECCOMP_POD = "seccomp.security.alpha.kubernetes.io/pod"
SECCOMP_PREFIX = "container.seccomp.security.alpha.kubernetes.io/"
PROFILES = ("RuntimeDefault", "Localhost")
BASELINE_CAPABILITIES = frozenset(
    [
        "AUDIT_WRITE",
        "CHOWN",
        "DAC_OVERRIDE",
        "FOWNER",
        "FSETID",
        "KILL",
        "MKNOD",
        "NET_BIND_SERVICE",
        "SETFCAP",
        "SETGID",
        "SETPCAP",
        "SETUID",
        "SYS_CHROOT",
    ]
)
VOLUME_TYPES = frozenset(
    [
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "image",
        "persistentVolumeClaim",
        "projected",
        "secret",
    ]
)
SELINUX_TYPES = frozenset({"", "container_t", "container_init_t", "container_kvm_t"})
SYSCTLS = frozenset(
    [
        "kernel.shm_rmid_forced",
        "net.ipv4.ip_local_port_range",
        "net.ipv4.tcp_syncookies",
        "net.ipv4.ping_group_range",
        "net.ipv4.ip_unprivileged_port_start",
    ]
)
SYSCTLS_1_27 = SYSCTLS | {"net.ipv4.ip_local_reserved_ports"}
SYSCTLS_1_29 = SYSCTLS_1_27 | frozenset(
    [
        "net.ipv4.tcp_keepalive_time",
        "net.ipv4.tcp_fin_timeout",
        "net.ipv4.tcp_keepalive_intvl",
        "net.ipv4.tcp_keepalive_probes",
    ]
)
SYSCTLS_1_32 = SYSCTLS_1_29 | {"net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem"}

# -- words ------------------------------------------------------------------------------------------------------------


def _quoted(words: Iterable[str]) -> str:
    return ", ".join(f'"{word}"' for word in words)


def _go_text(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _plural(word: str, count: int) -> str:
    return word if count == 1 else f"{word}s"


def _containers(names: Collection[str]) -> str:
    return f"{_plural('container', len(names))} {_quoted(names)}"


def _setters(pod: bool, names: Collection[str]) -> str:
    """`pod and container "a"`: who has set something."""
    return " and ".join([*(["pod"] if pod else []), *([_containers(names)] if names else [])])


def _each(spec: Obj) -> list[tuple[str, Obj, Obj]]:
    """(name, container, its security context) of every container, init containers first."""
    found = []
    for field in ("initContainers", "containers", "ephemeralContainers"):
        for container in spec.get(field) or ():
            found.append((container.get("name") or "", container, container.get("securityContext") or {}))
    return found


def _pod_context(spec: Obj) -> Obj:
    context: Obj = spec.get("securityContext") or {}
    return context


# -- conditions under which a check does not hold ---------------------------------------------------------------------


def unless_windows(check: Check) -> Check:
    """Windows has no such thing."""
    return lambda meta, spec: None if (spec.get("os") or {}).get("name") == "windows" else check(meta, spec)


def unless_user_namespace(check: Check) -> Check:
    """A pod with user ids of its own is no danger to the host's."""
    return lambda meta, spec: None if spec.get("hostUsers") is False else check(meta, spec)


# -- baseline ---------------------------------------------------------------------------------------------------------


def app_armor(meta: Obj, spec: Obj) -> Violation | None:
    own = _pod_context(spec).get("appArmorProfile")
    pod = own is not None and own.get("type") not in PROFILES
    values = {str(own.get("type") or "")} if own is not None and pod else set()
    names = []
    for name, _, context in _each(spec):
        profile = context.get("appArmorProfile")
        if profile is not None and profile.get("type") not in PROFILES:
            names.append(name)
            values.add(str(profile.get("type") or ""))
    forbidden = [
        f"{key}={_go_text(value)}"
        for key, value in sorted((meta.get("annotations") or {}).items())
        if key.startswith(APPARMOR_PREFIX)
        and value not in ("", "runtime/default")
        and not value.startswith("localhost/")
    ]
    setters = [_setters(pod, names)] if pod or names else []
    if forbidden:
        setters.append(_plural("annotation", len(forbidden)))
    if not setters:
        return None
    shown = [*sorted(values), *forbidden]
    detail = f"{' and '.join(setters)} must not set AppArmor profile type to {_quoted(shown)}"
    return Violation(_plural("forbidden AppArmor profile", len(shown)), detail)


def baseline_capabilities(meta: Obj, spec: Obj) -> Violation | None:
    names, added = _added_capabilities(spec, BASELINE_CAPABILITIES)
    return Violation("non-default capabilities", _must_not_add(names, added)) if names else None


def _added_capabilities(spec: Obj, allowed: Collection[str]) -> tuple[list[str], set[str]]:
    names, added = [], set[str]()
    for name, _, context in _each(spec):
        extra = {each for each in (context.get("capabilities") or {}).get("add") or () if each not in allowed}
        if extra:
            names.append(name)
            added |= extra
    return names, added


def _must_not_add(names: Collection[str], added: set[str]) -> str:
    return f"{_containers(names)} must not include {_quoted(sorted(added))} in securityContext.capabilities.add"


def host_namespaces(meta: Obj, spec: Obj) -> Violation | None:
    found = [f"{field}=true" for field in ("hostNetwork", "hostPID", "hostIPC") if spec.get(field)]
    return Violation("host namespaces", ", ".join(found)) if found else None


def host_path_volumes(meta: Obj, spec: Obj) -> Violation | None:
    names = [each.get("name") or "" for each in spec.get("volumes") or () if each.get("hostPath") is not None]
    return Violation("hostPath volumes", f"{_plural('volume', len(names))} {_quoted(names)}") if names else None


def host_ports(meta: Obj, spec: Obj) -> Violation | None:
    names, ports = [], set[str]()
    for name, container, _ in _each(spec):
        used = {str(port["hostPort"]) for port in container.get("ports") or () if port.get("hostPort")}
        if used:
            names.append(name)
            ports |= used
    if not names:
        return None
    uses = "uses" if len(names) == 1 else "use"
    return Violation(
        "hostPort", f"{_containers(names)} {uses} {_plural('hostPort', len(ports))} {', '.join(sorted(ports))}"
    )


def host_probes(meta: Obj, spec: Obj) -> Violation | None:
    names, hosts = set[str](), set[str]()
    for name, container, _ in _each(spec):
        handlers = [container.get(probe) for probe in ("livenessProbe", "readinessProbe", "startupProbe")]
        handlers += [(container.get("lifecycle") or {}).get(hook) for hook in ("postStart", "preStop")]
        for handler in handlers:
            for action in ("httpGet", "tcpSocket"):
                host = ((handler or {}).get(action) or {}).get("host")
                if host:
                    names.add(name)
                    hosts.add(host)
    if not names:
        return None
    uses = "uses" if len(names) == 1 else "use"
    what = _plural("probe or lifecycle host", len(hosts))
    detail = f"{_containers(sorted(names))} {uses} {what} {_quoted(sorted(hosts))}"
    return Violation("probe or lifecycle host", detail)


def privileged(meta: Obj, spec: Obj) -> Violation | None:
    names = [name for name, _, context in _each(spec) if context.get("privileged")]
    if not names:
        return None
    return Violation("privileged", f"{_containers(names)} must not set securityContext.privileged=true")


def proc_mount(meta: Obj, spec: Obj) -> Violation | None:
    found = [
        (name, str(context["procMount"]))
        for name, _, context in _each(spec)
        if context.get("procMount") not in (None, "Default")
    ]
    if not found:
        return None
    values = sorted({value for _, value in found})
    names = [name for name, _ in found]
    return Violation("procMount", f"{_containers(names)} must not set securityContext.procMount to {_quoted(values)}")


def se_linux(allowed: Collection[str]) -> Check:
    """Only `type` may be set, and only to one of these."""

    def check(meta: Obj, spec: Obj) -> Violation | None:
        types, fields = set[str](), set[str]()

        def bad(options: Obj | None) -> bool:
            if options is None:
                return False
            kind = options.get("type") or ""
            wrong = {field for field in ("user", "role") if options.get(field)}
            fields.update(wrong)
            if kind not in allowed:
                types.add(kind)
            return bool(wrong) or kind not in allowed

        pod = bad(_pod_context(spec).get("seLinuxOptions"))
        names = [name for name, _, context in _each(spec) if bad(context.get("seLinuxOptions"))]
        if not pod and not names:
            return None
        told = [f"{_plural('type', len(types))} {_quoted(sorted(types))}"] if types else []
        told += [f"{field} may not be set" for field in ("user", "role") if field in fields]
        detail = f"{_setters(pod, names)} set forbidden securityContext.seLinuxOptions: {'; '.join(told)}"
        return Violation("seLinuxOptions", detail)

    return check


def sysctls(allowed: Collection[str]) -> Check:
    """Only these kernel parameters."""

    def check(meta: Obj, spec: Obj) -> Violation | None:
        named = [each.get("name") or "" for each in _pod_context(spec).get("sysctls") or ()]
        found = [name for name in named if name not in allowed]
        return Violation("forbidden sysctls", ", ".join(found)) if found else None

    return check


def seccomp_annotations(meta: Obj, spec: Obj) -> Violation | None:
    """Before 1.19 the profile was an annotation."""
    annotations = meta.get("annotations") or {}
    keys = {SECCOMP_POD, *(f"{SECCOMP_PREFIX}{name}" for name, _, _ in _each(spec))}
    found = [
        f"{key}={_go_text(annotations[key])}"
        for key in sorted(keys)
        if key in annotations
        and annotations[key] not in ("runtime/default", "docker/default")
        and not annotations[key].startswith("localhost/")
    ]
    if not found:
        return None
    return Violation("seccompProfile", f"forbidden {_plural('annotation', len(found))} {', '.join(found)}")


def _seccomp(spec: Obj, required: bool) -> Violation | None:
    own = _pod_context(spec).get("seccompProfile")
    pod = own is not None and own.get("type") not in PROFILES
    values = {str(own.get("type") or "")} if own is not None and pod else set()
    explicit, implicit = [], []
    for name, _, context in _each(spec):
        profile = context.get("seccompProfile")
        if profile is None:
            if own is None or pod:
                implicit.append(name)
        elif profile.get("type") not in PROFILES:
            explicit.append(name)
            values.add(str(profile.get("type") or ""))
    field = "securityContext.seccompProfile.type"
    if pod or explicit:
        detail = f"{_setters(pod, explicit)} must not set {field} to {_quoted(sorted(values))}"
        return Violation("seccompProfile", detail)
    if required and implicit:
        detail = f'pod or {_containers(implicit)} must set {field} to "RuntimeDefault" or "Localhost"'
        return Violation("seccompProfile", detail)
    return None


def baseline_seccomp(meta: Obj, spec: Obj) -> Violation | None:
    return _seccomp(spec, required=False)


def host_process(meta: Obj, spec: Obj) -> Violation | None:
    pod = bool((_pod_context(spec).get("windowsOptions") or {}).get("hostProcess"))
    names = [name for name, _, context in _each(spec) if (context.get("windowsOptions") or {}).get("hostProcess")]
    if not pod and not names:
        return None
    return Violation(
        "hostProcess", f"{_setters(pod, names)} must not set securityContext.windowsOptions.hostProcess=true"
    )


# -- restricted -------------------------------------------------------------------------------------------------------


def privilege_escalation(meta: Obj, spec: Obj) -> Violation | None:
    names = [name for name, _, context in _each(spec) if context.get("allowPrivilegeEscalation") is not False]
    if not names:
        return None
    detail = f"{_containers(names)} must set securityContext.allowPrivilegeEscalation=false"
    return Violation("allowPrivilegeEscalation != false", detail)


def restricted_capabilities(meta: Obj, spec: Obj) -> Violation | None:
    keeping = [
        name for name, _, context in _each(spec) if "ALL" not in ((context.get("capabilities") or {}).get("drop") or ())
    ]
    told = []
    if keeping:
        told.append(f'{_containers(keeping)} must set securityContext.capabilities.drop=["ALL"]')
    names, added = _added_capabilities(spec, ("NET_BIND_SERVICE",))
    if names:
        told.append(_must_not_add(names, added))
    return Violation("unrestricted capabilities", "; ".join(told)) if told else None


def restricted_volumes(meta: Obj, spec: Obj) -> Violation | None:
    names, types = [], set[str]()
    for volume in spec.get("volumes") or ():
        sources = [key for key, value in volume.items() if key != "name" and value is not None]
        if not VOLUME_TYPES.intersection(sources):
            names.append(volume.get("name") or "")
            types.add(sources[0] if sources else "unknown")
    if not names:
        return None
    uses = "uses" if len(names) == 1 else "use"
    what = _plural("restricted volume type", len(types))
    detail = f"{_plural('volume', len(names))} {_quoted(names)} {uses} {what} {_quoted(sorted(types))}"
    return Violation("restricted volume types", detail)


def run_as_non_root(meta: Obj, spec: Obj) -> Violation | None:
    own = _pod_context(spec).get("runAsNonRoot")
    explicit = [name for name, _, context in _each(spec) if context.get("runAsNonRoot") is False]
    reason = "runAsNonRoot != true"
    if own is False or explicit:
        return Violation(reason, f"{_setters(own is False, explicit)} must not set securityContext.runAsNonRoot=false")
    implicit = [name for name, _, context in _each(spec) if not own and context.get("runAsNonRoot") is None]
    if implicit:
        return Violation(reason, f"pod or {_containers(implicit)} must set securityContext.runAsNonRoot=true")
    return None


def run_as_user(meta: Obj, spec: Obj) -> Violation | None:
    pod = _pod_context(spec).get("runAsUser") == 0
    names = [name for name, _, context in _each(spec) if context.get("runAsUser") == 0]
    return Violation("runAsUser=0", f"{_setters(pod, names)} must not set runAsUser=0") if pod or names else None


def restricted_seccomp(meta: Obj, spec: Obj) -> Violation | None:
    return _seccomp(spec, required=True)
