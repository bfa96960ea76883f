"""Options of Windows pods: users, credential specs, host processes.

Called by the rules of security contexts and pods.
"""

import re
from collections.abc import Iterator
from typing import Any

from apiserver.registry.validation import names
from apiserver.registry.validation.fields import invalid_each
from machinery.field_errors import FieldError

Obj = dict[str, Any]
_CREDENTIAL_KIB, _DOMAIN, _USER = 64, 256, 104
_control = re.compile(r"[\x00-\x1f\x7f]").search
_net_bios = re.compile(r"""[^\\/:*?"<>|.][^\\/:*?"<>|]{0,14}""").fullmatch
_LABEL = "[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?"
_dns_domain = re.compile(rf"{_LABEL}(?:\.{_LABEL})*").fullmatch
_bad_user = re.compile(r"""["/\\:;|=,+*?<>@\[\]]""").search


def validate_windows_options(options: Obj, path: str) -> list[FieldError]:
    """WindowsSecurityContextOptions."""
    errors: list[FieldError] = []
    if (name := options.get("gmsaCredentialSpecName")) is not None:
        errors += invalid_each(f"{path}.gmsaCredentialSpecName", name, names.dns_subdomain(name))
    if (spec := options.get("gmsaCredentialSpec")) is not None:
        at = f"{path}.gmsaCredentialSpec"
        if not spec:
            errors.append(FieldError.invalid(at, spec, "gmsaCredentialSpec cannot be an empty string"))
        elif len(spec.encode()) > _CREDENTIAL_KIB * 1024:
            detail = f"gmsaCredentialSpec size must be under {_CREDENTIAL_KIB} KiB"
            errors.append(FieldError.invalid(at, spec, detail))
    if (user := options.get("runAsUserName")) is not None:
        errors += invalid_each(f"{path}.runAsUserName", user, _user_problems(user))
    return errors


def _user_problems(text: str) -> Iterator[str]:
    parts = text.split("\\")
    if not text:
        yield "runAsUserName cannot be an empty string"
    elif _control(text):
        yield "runAsUserName cannot contain control characters"
    elif len(parts) > 2:
        yield "runAsUserName cannot contain more than one backslash"
    else:
        domain, user = ("", parts[0]) if len(parts) == 1 else parts
        if len(domain) >= _DOMAIN:
            yield f"runAsUserName's Domain length must be under {_DOMAIN} characters"
        if len(parts) == 2 and not (_net_bios(domain) or _dns_domain(domain)):
            yield "runAsUserName's Domain doesn't match the NetBios nor the DNS format"
        if not user:
            yield "runAsUserName's User cannot be empty"
        elif len(user) > _USER:
            yield f"runAsUserName's User length must not be longer than {_USER} characters"
        if user and not user.strip(". "):
            yield "runAsUserName's User cannot contain only periods or spaces"
        if _bad_user(user):
            yield r"""runAsUserName's User cannot contain the following characters: "/\:;|=,+*?<>@[]"""


def validate_host_processes(spec: Obj, path: str) -> list[FieldError]:
    """All containers of a pod are host processes, or none is."""

    def asked(security: Obj | None) -> Any:
        return ((security or {}).get("windowsOptions") or {}).get("hostProcess")

    errors: list[FieldError] = []
    of_pod, containers, processes = asked(spec.get("securityContext")), 0, 0
    for field in ("initContainers", "containers", "ephemeralContainers"):
        for index, container in enumerate(spec.get(field) or ()):
            containers += 1
            own = asked(container.get("securityContext"))
            if None not in (of_pod, own) and of_pod != own:
                shown = "true" if of_pod else "false"
                detail = f"pod hostProcess value must be identical if both are specified, was {shown}"
                where = f"{path}.{field}[{index}].securityContext.windowsOptions.hostProcess"
                errors.append(FieldError.invalid(where, own, detail))
            processes += bool(of_pod if own is None else own)
    if not processes:
        return errors
    if processes != containers:
        detail = "If pod contains any hostProcess containers then all containers must be HostProcess containers"
        errors.append(FieldError.invalid(path, "", detail))
    if not spec.get("hostNetwork"):
        detail = "hostNetwork must be true if pod contains any hostProcess containers"
        errors.append(FieldError.invalid(f"{path}.hostNetwork", False, detail))
    return errors
