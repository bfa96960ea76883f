"""audit.k8s.io/v1 Policy: which request is recorded at which level.

Owns: reading and validating the file, and the first rule that matches. Never records. A policy that is wrong anywhere
is refused as a whole: half a policy would leave out what somebody wanted to see. Read by `apiserver.app`, asked by
`auditor`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from apiserver.auth.attributes import Attributes
from apiserver.auth.user import UserInfo

NONE, METADATA, REQUEST, REQUEST_RESPONSE = "None", "Metadata", "Request", "RequestResponse"
LEVELS = (NONE, METADATA, REQUEST, REQUEST_RESPONSE)
RECEIVED, STARTED, COMPLETE, PANIC = "RequestReceived", "ResponseStarted", "ResponseComplete", "Panic"
STAGES = (RECEIVED, STARTED, COMPLETE, PANIC)
API_VERSION = "audit.k8s.io/v1"


class PolicyError(ValueError):
    """What is wrong with a policy, with the path of the field."""


class _GroupResources(msgspec.Struct, forbid_unknown_fields=True, rename="camel"):
    group: str = ""
    resources: list[str] = []
    resource_names: list[str] = []


class _Rule(msgspec.Struct, forbid_unknown_fields=True, rename="camel"):
    level: str = ""
    users: list[str] = []
    user_groups: list[str] = []
    verbs: list[str] = []
    resources: list[_GroupResources] = []
    namespaces: list[str] = []
    non_resource_urls: list[str] = msgspec.field(default_factory=list, name="nonResourceURLs")
    omit_stages: list[str] = []
    omit_managed_fields: bool | None = None


class _Policy(msgspec.Struct, forbid_unknown_fields=True, rename="camel"):
    api_version: str = ""
    kind: str = ""
    metadata: dict[str, Any] = {}
    rules: list[_Rule] = []
    omit_stages: list[str] = []
    omit_managed_fields: bool = False


class Verdict(NamedTuple):
    """How much of a request is recorded."""

    level: str
    omit_stages: frozenset[str]
    omit_managed_fields: bool


UNRECORDED = Verdict(NONE, frozenset(), False)


@dataclass(frozen=True)
class Policy:
    """The rules, in order. `names` says whether any rule looks at the name of an object."""

    rules: tuple[tuple[_Rule, Verdict], ...]
    names: bool

    def verdict(self, user: UserInfo, asked: Attributes) -> Verdict:
        """The first matching rule's; without one nothing is recorded."""
        for rule, verdict in self.rules:
            if _matches(rule, user, asked):
                return verdict
        return UNRECORDED


def load(path: Path) -> Policy:
    """A policy file, YAML or JSON. Raises PolicyError."""
    import yaml

    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise PolicyError(f"{path}: {error}") from error
    try:
        return parse(value)
    except PolicyError as error:
        raise PolicyError(f"{path}: {error}") from error


def parse(value: Any) -> Policy:
    """A decoded policy. Raises PolicyError that names every wrong field."""
    if isinstance(value, dict) and (value.get("apiVersion"), value.get("kind")) != (API_VERSION, "Policy"):
        raise PolicyError(
            f'expected kind "Policy" of "{API_VERSION}", got {value.get("kind")!r} of {value.get("apiVersion")!r}'
        )
    try:
        read = msgspec.convert(value, _Policy)
    except msgspec.ValidationError as error:
        raise PolicyError(str(error)) from error
    wrong = list(_wrong(read))
    if wrong:
        raise PolicyError("; ".join(wrong))
    rules = []
    for rule in read.rules:
        managed = read.omit_managed_fields if rule.omit_managed_fields is None else rule.omit_managed_fields
        verdict = Verdict(rule.level, frozenset((*read.omit_stages, *rule.omit_stages)), managed)
        rules.append((rule, verdict))
    names = any(resource.resource_names for rule in read.rules for resource in rule.resources)
    return Policy(tuple(rules), names)


def _wrong(policy: _Policy) -> Sequence[str]:
    found = [
        f'omitStages: Invalid value: "{stage}": allowed stages are {",".join(STAGES)}'
        for stage in policy.omit_stages
        if stage not in STAGES
    ]
    if not policy.rules:
        found.append("rules: Required value: a policy without rules records nothing")
    for index, rule in enumerate(policy.rules):
        at = f"rules[{index}]"
        if not rule.level:
            found.append(f"{at}.level: Required value")
        elif rule.level not in LEVELS:
            found.append(
                f'{at}.level: Unsupported value: "{rule.level}": supported values: '
                + ", ".join(f'"{level}"' for level in LEVELS)
            )
        found += [
            f'{at}.omitStages: Invalid value: "{stage}": allowed stages are {",".join(STAGES)}'
            for stage in rule.omit_stages
            if stage not in STAGES
        ]
        found += _wrong_urls(at, rule)
        found += _wrong_resources(at, rule)
    return found


def _wrong_urls(at: str, rule: _Rule) -> Sequence[str]:
    found = []
    if rule.non_resource_urls and (rule.resources or rule.namespaces):
        found.append(
            f"{at}.nonResourceURLs: Invalid value: {rule.non_resource_urls}: "
            "rules cannot apply to both regular resources and non-resource URLs"
        )
    for number, url in enumerate(rule.non_resource_urls):
        where = f'{at}.nonResourceURLs[{number}]: Invalid value: "{url}"'
        if url == "*":
            continue
        if not url.startswith("/"):
            found.append(f"{where}: non-resource URL rules must begin with a '/' character")
        if "*" in url[:-1]:
            found.append(f"{where}: non-resource URL wildcards '*' must be the final character of the rule")
    return found


def _wrong_resources(at: str, rule: _Rule) -> Sequence[str]:
    found = []
    for number, entry in enumerate(rule.resources):
        where = f"{at}.resources[{number}]"
        group = entry.group
        if group and not (group.replace(".", "").replace("-", "").isalnum() and group == group.lower()):
            found.append(f'{where}.group: Invalid value: "{group}": must be a DNS-1123 subdomain')
        if entry.resource_names and not entry.resources:
            found.append(
                f"{where}.resourceNames: Invalid value: {entry.resource_names}: "
                "using resourceNames requires at least one resource"
            )
    return found


def _matches(rule: _Rule, user: UserInfo, asked: Attributes) -> bool:
    if rule.users and user.name not in rule.users:
        return False
    if rule.user_groups and not any(group in rule.user_groups for group in user.groups):
        return False
    if rule.verbs and asked.verb not in rule.verbs:
        return False
    if rule.namespaces or rule.resources:
        return asked.is_resource and _matches_resource(rule, asked)
    if rule.non_resource_urls:
        return not asked.is_resource and any(_matches_url(spec, asked.path) for spec in rule.non_resource_urls)
    return True


def _matches_url(spec: str, path: str) -> bool:
    return spec in ("*", path) or (spec.endswith("*") and path.startswith(spec[:-1].rstrip("/")))


def _matches_resource(rule: _Rule, asked: Attributes) -> bool:
    if rule.namespaces and asked.namespace not in rule.namespaces:
        return False
    if not rule.resources:
        return True
    combined = f"{asked.resource}/{asked.subresource}" if asked.subresource else asked.resource
    for entry in rule.resources:
        if entry.group != asked.group:
            continue
        if not entry.resources:
            return True
        if entry.resource_names and asked.name not in entry.resource_names:
            continue
        for spec in entry.resources:
            if spec in ("*", combined):
                return True
            if asked.subresource and spec in (f"{asked.resource}/*", f"*/{asked.subresource}"):
                return True
    return False
