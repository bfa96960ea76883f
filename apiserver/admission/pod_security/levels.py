"""Levels and versions: which checks a namespace's labels ask for.

Owns the labels, their findings, and the table of checks by level and first version. Pure; called by the plugin.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from typing import Any, Final, NamedTuple

from apiserver.admission.pod_security import checks
from apiserver.admission.pod_security.checks import Check, Violation, unless_user_namespace, unless_windows
from machinery.field_errors import FieldError

PREFIX: Final = "pod-security.kubernetes.io/"
PRIVILEGED, BASELINE, RESTRICTED = "privileged", "baseline", "restricted"
LEVELS: Final = (PRIVILEGED, BASELINE, RESTRICTED)
LATEST: Final = "latest"
NEWEST: Final = 36
"""Minor version of Kubernetes whose rules are the latest known here."""
_VERSION = re.compile(r"v1\.([0-9]|[1-9][0-9]*)")


class Standard(NamedTuple):
    """A level in a version, `restricted:v1.30`."""

    level: str = PRIVILEGED
    version: str = LATEST

    def __str__(self) -> str:
        return f"{self.level}:{self.version}"


class Policy(NamedTuple):
    """What a namespace asks for."""

    enforce: Standard = Standard()
    audit: Standard = Standard()
    warn: Standard = Standard()

    @property
    def free(self) -> bool:
        return all(each.level == PRIVILEGED for each in self)


def policy_of(labels: Mapping[str, str]) -> tuple[Policy, list[FieldError]]:
    """The policy and what is wrong with the labels; what is wrong counts as restricted, the safest."""
    found: list[FieldError] = []
    standards: dict[str, Standard] = {}
    for mode in ("enforce", "audit", "warn"):
        standards[mode] = Standard()
        level = labels.get(PREFIX + mode)
        if level is not None:
            if level not in LEVELS:
                detail = "must be one of privileged, baseline, restricted"
                found.append(FieldError.invalid(f"metadata.labels[{PREFIX}{mode}]", level, detail))
                # A typing error must not switch protection off; nor may it forbid what was only to be warned of.
                level = RESTRICTED if mode == "enforce" else PRIVILEGED
            standards[mode] = standards[mode]._replace(level=level)
        version = labels.get(f"{PREFIX}{mode}-version")
        if version is not None:
            if version != LATEST and not _VERSION.fullmatch(version):
                detail = 'must be "latest" or "v1.x"'
                found.append(FieldError.invalid(f"metadata.labels[{PREFIX}{mode}-version]", version, detail))
                version = LATEST
            standards[mode] = standards[mode]._replace(version=version)
    enforce, warn = standards["enforce"], standards["warn"]
    trusted = labels.get(PREFIX + "enforce") in LEVELS
    if trusted and PREFIX + "warn" not in labels and LEVELS.index(enforce.level) > LEVELS.index(warn.level):
        # Who enforces wants to hear of templates too whose pods will be refused.
        warn = Standard(enforce.level, warn.version if PREFIX + "warn-version" in labels else enforce.version)
    return Policy(enforce, standards["audit"], warn), found


class Row(NamedTuple):
    """A check from a version on; `replaces` names the baseline check that it makes superfluous."""

    identity: str
    level: str
    since: int
    check: Check
    replaces: str = ""


TABLE: Final = (
    Row("appArmorProfile", BASELINE, 0, checks.app_armor),
    Row("capabilities_baseline", BASELINE, 0, checks.baseline_capabilities),
    Row("hostNamespaces", BASELINE, 0, checks.host_namespaces),
    Row("hostPathVolumes", BASELINE, 0, checks.host_path_volumes),
    Row("hostPorts", BASELINE, 0, checks.host_ports),
    Row("hostProbesAndHostLifecycle", BASELINE, 34, checks.host_probes),
    Row("privileged", BASELINE, 0, checks.privileged),
    Row("procMount", BASELINE, 0, checks.proc_mount),
    Row("procMount", BASELINE, 35, unless_user_namespace(checks.proc_mount)),
    Row("seLinuxOptions", BASELINE, 0, checks.se_linux(checks.SELINUX_TYPES)),
    Row("seLinuxOptions", BASELINE, 31, checks.se_linux(checks.SELINUX_TYPES | {"container_engine_t"})),
    Row("seccompProfile_baseline", BASELINE, 0, checks.seccomp_annotations),
    Row("seccompProfile_baseline", BASELINE, 19, checks.baseline_seccomp),
    Row("sysctls", BASELINE, 0, checks.sysctls(checks.SYSCTLS)),
    Row("sysctls", BASELINE, 27, checks.sysctls(checks.SYSCTLS_1_27)),
    Row("sysctls", BASELINE, 29, checks.sysctls(checks.SYSCTLS_1_29)),
    Row("sysctls", BASELINE, 32, checks.sysctls(checks.SYSCTLS_1_32)),
    Row("windowsHostProcess", BASELINE, 0, checks.host_process),
    Row("allowPrivilegeEscalation", RESTRICTED, 8, checks.privilege_escalation),
    Row("allowPrivilegeEscalation", RESTRICTED, 25, unless_windows(checks.privilege_escalation)),
    Row("capabilities_restricted", RESTRICTED, 22, checks.restricted_capabilities, "capabilities_baseline"),
    Row(
        "capabilities_restricted",
        RESTRICTED,
        25,
        unless_windows(checks.restricted_capabilities),
        "capabilities_baseline",
    ),
    Row("procMount_restricted", RESTRICTED, 35, checks.proc_mount, "procMount"),
    Row("restrictedVolumes", RESTRICTED, 0, checks.restricted_volumes, "hostPathVolumes"),
    Row("runAsNonRoot", RESTRICTED, 0, checks.run_as_non_root),
    Row("runAsNonRoot", RESTRICTED, 35, unless_user_namespace(checks.run_as_non_root)),
    Row("runAsUser", RESTRICTED, 23, checks.run_as_user),
    Row("runAsUser", RESTRICTED, 35, unless_user_namespace(checks.run_as_user)),
    Row("seccompProfile_restricted", RESTRICTED, 19, checks.restricted_seccomp, "seccompProfile_baseline"),
    Row(
        "seccompProfile_restricted",
        RESTRICTED,
        25,
        unless_windows(checks.restricted_seccomp),
        "seccompProfile_baseline",
    ),
)
"""Baseline before restricted, each by name: the order in which upstream tells violations."""


@cache
def checks_of(standard: Standard) -> tuple[Check, ...]:
    """The checks of a level in a version; of each the newest that is not newer than the version."""
    level, version = standard
    if level == PRIVILEGED:
        return ()
    minor = NEWEST if version == LATEST else min(int(version.partition(".")[2]), NEWEST)
    chosen = {row.identity: row for row in TABLE if row.since <= minor and (level == RESTRICTED or row.level == level)}
    replaced = {row.replaces for row in chosen.values()}
    return tuple(row.check for row in chosen.values() if row.identity not in replaced)


def violations(standard: Standard, meta: Mapping[str, Any], spec: Mapping[str, Any]) -> list[Violation]:
    """What the standard forbids about a pod."""
    found = (check(meta, spec) for check in checks_of(standard))
    return [each for each in found if each is not None]


def details(found: list[Violation]) -> str:
    """`reason (detail), reason`."""
    return ", ".join(f"{each.reason} ({each.detail})" if each.detail else each.reason for each in found)


def reasons(found: list[Violation]) -> str:
    return ", ".join(each.reason for each in found)
