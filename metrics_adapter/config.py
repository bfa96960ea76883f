"""The adapter's configuration, in prometheus-adapter's form: which series become metrics, of what, by which query.

Owns: reading and judging the file, and the defaults. Errors name the rule and the field. Source of the form: the
configuration reference of prometheus-adapter.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import msgspec

from metrics_adapter.templates import Template

QUERY_FIELDS = {
    "Series": False,
    "LabelMatchers": False,
    "LabelValuesByName": True,
    "GroupBy": False,
    "GroupBySlice": False,
}
LABEL_FIELDS = {"Group": False, "Resource": False}
LABEL_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*", re.ASCII)
_REFERENCE = re.compile(r"\$(?:\$|(\w+)|\{(\w+)\})", re.ASCII)
_RANGE = re.compile(r"\[\s*((?:\d+(?:ms|[smhdwy]))+)\s*(?::[^\]]*)?\]")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0, "y": 31536000.0}


class ConfigError(ValueError):
    """A configuration that cannot be used; says where and why."""


class RegexFilter(msgspec.Struct, forbid_unknown_fields=True, rename={"is_": "is", "is_not": "isNot"}):
    """Which names of series count; one of the two."""

    is_: str = ""
    is_not: str = ""


class GroupResource(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """`resource` may be plural or singular; without a group, whichever has it."""

    resource: str
    group: str = ""


class ResourceMapping(msgspec.Struct, forbid_unknown_fields=True):
    """Which labels name which objects."""

    template: str = ""
    overrides: dict[str, GroupResource] = {}
    namespaced: bool | None = None


class NameMapping(msgspec.Struct, forbid_unknown_fields=True, rename={"as_": "as"}):
    """From names of series to names of metrics."""

    matches: str = ""
    as_: str = ""


class Replacement(msgspec.Struct, forbid_unknown_fields=True):
    """In the values of an external metric's selector."""

    find: str = ""
    replace: str = ""


class RawRule(msgspec.Struct, forbid_unknown_fields=True):
    """A rule as written."""

    seriesQuery: str
    metricsQuery: str = "sum(<<.Series>>{<<.LabelMatchers>>}) by (<<.GroupBy>>)"
    seriesFilters: list[RegexFilter] = []
    resources: ResourceMapping = msgspec.field(default_factory=ResourceMapping)
    name: NameMapping = msgspec.field(default_factory=NameMapping)
    labelValueReplacements: list[Replacement] = []


class RawConfig(msgspec.Struct, forbid_unknown_fields=True):
    """The file. `resourceRules` belongs to the resource metrics, which metrics-server serves."""

    rules: list[RawRule] = []
    externalRules: list[RawRule] = []
    resourceRules: Any = None


@dataclass(frozen=True)
class Rule:
    """A rule that can be used."""

    series_query: str
    query: Template
    filters: tuple[tuple[re.Pattern[str], bool], ...]
    matches: re.Pattern[str]
    alias: str
    overrides: dict[str, GroupResource]
    label: Template | None
    namespaced: bool
    replacements: tuple[tuple[str, str], ...]

    def takes(self, series: str) -> bool:
        """Whether the rule is about series of that name."""
        return all(bool(regex.search(series)) is wanted for regex, wanted in self.filters)

    def name_of(self, series: str) -> str:
        """The metric's name; "" when the series has none by this rule."""
        match = self.matches.search(series)
        return expand(self.alias, match) if match else ""

    @cached_property
    def window(self) -> int | None:
        """Seconds of the longest range in the query; None for one of instants."""
        found = [duration(match.group(1)) for match in _RANGE.finditer(self.query.text)]
        return int(max(found)) if found else None


def duration(text: str) -> float:
    """Seconds of a Prometheus duration such as 1m30s."""
    return sum(int(number) * _UNITS[unit] for number, unit in re.findall(r"(\d+)(ms|[smhdwy])", text))


def expand(alias: str, match: re.Match[str]) -> str:
    """Go's Regexp.Expand: $1, ${1}, $name; the longest name counts, so that $1x means a group called 1x; $$ is $."""

    def value(reference: re.Match[str]) -> str:
        name = reference.group(1) or reference.group(2)
        if name is None:
            return "$"
        try:
            return match.group(int(name) if name.isdigit() else name) or ""
        except IndexError:
            return ""

    return _REFERENCE.sub(value, alias)


@dataclass(frozen=True)
class Config:
    """All rules."""

    rules: tuple[Rule, ...]
    external: tuple[Rule, ...]


def read(text: str | bytes) -> Config:
    """Raises ConfigError."""
    try:
        raw = msgspec.yaml.decode(text, type=RawConfig)
    except msgspec.MsgspecError as error:
        raise ConfigError(str(error)) from error
    return Config(
        tuple(_rules("rules", raw.rules, external=False)),
        tuple(_rules("externalRules", raw.externalRules, external=True)),
    )


def _rules(section: str, raw: list[RawRule], *, external: bool) -> Iterator[Rule]:
    for number, each in enumerate(raw):
        try:
            yield _rule(each, external=external)
        except ValueError as error:
            raise ConfigError(f"{section}[{number}] (seriesQuery {each.seriesQuery!r}): {error}") from error


def _rule(raw: RawRule, *, external: bool) -> Rule:
    if not raw.seriesQuery.strip():
        raise ValueError("seriesQuery: must be specified")
    filters = tuple(_filter(each) for each in raw.seriesFilters)
    matches = _regex("name.matches", raw.name.matches) if raw.name.matches else re.compile(".*")
    if raw.name.matches:
        filters += ((matches, True),)
    alias = raw.name.as_
    if not alias:
        if matches.groups > 1:
            raise ValueError(f"name.as: must be specified, {raw.name.matches!r} has {matches.groups} capture groups")
        alias = "$1" if matches.groups else "$0"
    resources = raw.resources
    if not (external or resources.template or resources.overrides):
        raise ValueError("resources: must have a template or overrides")
    for label, wanted in resources.overrides.items():
        if not LABEL_NAME.fullmatch(label):
            raise ValueError(f"resources.overrides: {label!r} is no name of a label")
        if not wanted.resource:
            raise ValueError(f"resources.overrides[{label}].resource: must be specified")
    return Rule(
        raw.seriesQuery,
        _template("metricsQuery", raw.metricsQuery, QUERY_FIELDS),
        filters,
        matches,
        alias,
        dict(resources.overrides),
        _label_template(resources.template),
        resources.namespaced is not False,
        tuple((each.find, each.replace) for each in raw.labelValueReplacements if each.find),
    )


def _filter(raw: RegexFilter) -> tuple[re.Pattern[str], bool]:
    if raw.is_ and raw.is_not:
        raise ValueError(f"seriesFilters: cannot have both is ({raw.is_!r}) and isNot ({raw.is_not!r}) in one filter")
    if not (raw.is_ or raw.is_not):
        raise ValueError("seriesFilters: must have either is or isNot")
    return _regex("seriesFilters", raw.is_ or raw.is_not), bool(raw.is_)


def _regex(field: str, text: str) -> re.Pattern[str]:
    try:
        return re.compile(text, re.ASCII)
    except re.error as error:
        raise ValueError(f"{field}: unable to compile {text!r}: {error}") from error


def _template(field: str, text: str, fields: dict[str, bool]) -> Template:
    if not text.strip():
        raise ValueError(f"{field}: must be specified")
    try:
        return Template(text, fields)
    except ValueError as error:
        raise ValueError(f"{field}: unable to parse template {text!r}: {error}") from error


def _label_template(text: str) -> Template | None:
    if not text:
        return None
    made = _template("resources.template", text, LABEL_FIELDS)
    if not made.uses("Resource"):
        raise ValueError(f"resources.template: {text!r} must include at least <<.Resource>>")
    return made


def defaults(window: int) -> str:
    """The configuration of those who wrote none. `window`: seconds over which rates are taken.

    Counters of scraped pods become rates (http_requests_total → http_requests_per_second), other series stay what they
    are, the ingress controller's requests become requests-per-second of Ingresses, the name in Kubernetes' own example.
    As external metrics all of these are told as they are labelled.
    """
    return _DEFAULTS.replace("WINDOW", f"{window}s")


_DEFAULTS = """\
# Which series of Prometheus are metrics of the cluster's objects, in the form of prometheus-adapter's configuration.
# Read again at every relist; a file with a mistake is told in the log and leaves the rules as they were.
rules:
# counters: rates per second
- seriesQuery: '{namespace!="",__name__=~"^.+_total$",__name__!~"^container_.*"}'
  resources: {template: "<<.Resource>>"}
  name: {matches: "^(.*)_total$", as: "${1}_per_second"}
  metricsQuery: sum(rate(<<.Series>>{<<.LabelMatchers>>}[WINDOW])) by (<<.GroupBy>>)
# everything else, as it is
- seriesQuery: '{namespace!="",__name__!~"^container_.*"}'
  seriesFilters:
  - isNot: "_(total|bucket)$"
  - isNot: "^(up|scrape_.+)$"
  - isNot: "^nginx_ingress_controller_requests$"
  resources: {template: "<<.Resource>>"}
  metricsQuery: sum(<<.Series>>{<<.LabelMatchers>>}) by (<<.GroupBy>>)
# ingress-nginx: its own label `namespace` is called exported_namespace once the scraped pod has one too
- seriesQuery: nginx_ingress_controller_requests{ingress!="",exported_namespace!=""}
  resources:
    overrides:
      exported_namespace: {resource: namespace}
      ingress: {group: networking.k8s.io, resource: ingress}
  name: {as: requests-per-second}
  metricsQuery: sum(rate(<<.Series>>{<<.LabelMatchers>>}[WINDOW])) by (<<.GroupBy>>)
externalRules:
- seriesQuery: '{namespace!="",__name__=~"^.+_total$",__name__!~"^container_.*"}'
  resources: {template: "<<.Resource>>"}
  name: {matches: "^(.*)_total$", as: "${1}_per_second"}
  metricsQuery: rate(<<.Series>>{<<.LabelMatchers>>}[WINDOW])
- seriesQuery: '{namespace!="",__name__!~"^container_.*"}'
  seriesFilters:
  - isNot: "_(total|bucket)$"
  - isNot: "^(up|scrape_.+)$"
  resources: {template: "<<.Resource>>"}
  metricsQuery: <<.Series>>{<<.LabelMatchers>>}
"""
