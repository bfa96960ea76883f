"""PromQL from a rule and a request: matchers, grouping, and the template filled with both. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from machinery.errors import BadRequest
from machinery.selectors import LabelSelector, Requirement
from metrics_adapter.config import LABEL_NAME, Rule

NAMES_AT_ONCE = 500
_SPECIAL = re.compile(r"([.+*?()|\[\]{}^$\\])")


def quoted(text: str) -> str:
    """A string of PromQL."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def any_of(values: Iterable[str]) -> str:
    """A regular expression that matches exactly these."""
    return "|".join(_SPECIAL.sub(r"\\\1", value) for value in values)


def one_of(label: str, values: Sequence[str]) -> str:
    """The matcher for one value or several."""
    return f"{label}={quoted(values[0])}" if len(values) == 1 else f"{label}=~{quoted(any_of(values))}"


def _matcher(requirement: Requirement, values: Sequence[str]) -> str:
    label = requirement.key
    match requirement.operator:
        case "In":
            return one_of(label, values)
        case "NotIn" if len(values) == 1:
            return f"{label}!={quoted(values[0])}"
        case "NotIn":
            return f"{label}!~{quoted(any_of(values))}"
        case "Exists":
            return f'{label}!=""'
        case "DoesNotExist":
            return f'{label}=""'
    raise BadRequest(f"metric selector: operator of {str(requirement)!r} is not supported by the query builder")


def selected(selector: LabelSelector, replacements: Iterable[tuple[str, str]] = ()) -> Iterator[tuple[str, str, str]]:
    """(label, matcher, values joined by |) of each term. Raises BadRequest for what PromQL cannot say."""
    for requirement in selector.requirements:
        if not LABEL_NAME.fullmatch(requirement.key):
            raise BadRequest(f"metric selector: {requirement.key!r} is no name of a metric's label")
        values = sorted(requirement.values)
        for find, replace in replacements:
            values = [value.replace(find, replace) for value in values]
        yield requirement.key, _matcher(requirement, values), "|".join(values)


def of_objects(
    rule: Rule,
    series: str,
    label: str,
    names: Sequence[str],
    namespace: tuple[str, str] | None,
    selector: LabelSelector,
) -> Iterator[str]:
    """The queries for objects by their names, so many at a time. `namespace`: its label and its value."""
    terms = list(selected(selector))
    if namespace is not None:
        terms.append((namespace[0], one_of(namespace[0], [namespace[1]]), namespace[1]))
    for start in range(0, len(names), NAMES_AT_ONCE):
        some = names[start : start + NAMES_AT_ONCE]
        yield _filled(rule, series, [*terms, (label, one_of(label, some), "|".join(some))], label)


def external(rule: Rule, series: str, namespace: tuple[str, str] | None, selector: LabelSelector) -> str:
    """The query for an external metric."""
    terms = list(selected(selector, rule.replacements))
    if namespace is not None:
        terms.append((namespace[0], one_of(namespace[0], [namespace[1]]), namespace[1]))
    return _filled(rule, series, terms, "")


def _filled(rule: Rule, series: str, terms: Sequence[tuple[str, str, str]], group_by: str) -> str:
    return rule.query.fill(
        {
            "Series": series,
            "LabelMatchers": ",".join(matcher for _, matcher, _ in terms),
            "LabelValuesByName": {label: values for label, _, values in terms},
            "GroupBy": group_by,
            "GroupBySlice": f"[{group_by}]",
        }
    )
