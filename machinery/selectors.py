"""Label and field selectors: the query language of list, watch, services and controllers.

Source: the documentation of labels and selectors, field selectors, and of metav1.LabelSelector. Syntax errors are
ValueErrors with the text that a server answers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from machinery.caching import keep_short

_TOKEN = re.compile(r"\s*(?:(==|!=|[=!,()<>])|([^\s=!,()<>]+))")
_NAME = re.compile(r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]$")
_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")
NAME_RULE = (
    "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric "
    "character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is "
    "'([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
)
VALUE_RULE = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and "
    "end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is "
    "'(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
)


def qualified_name_error(key: str) -> str:
    """Why `key` is no qualified name (`example.com/name`), or ""."""
    prefix, slash, name = key.rpartition("/")
    if slash and (not prefix or len(prefix) > 253 or not _SUBDOMAIN.match(prefix)):
        return "prefix part must be a lowercase RFC 1123 subdomain" if prefix else "prefix part must be non-empty"
    if not name:
        return f"name part must be non-empty; {NAME_RULE}"
    if len(name) > 63:
        return "name part must be no more than 63 bytes"
    return "" if _NAME.match(name) else NAME_RULE


def label_value_error(value: str) -> str:
    """Why `value` is no label value, or ""."""
    if len(value) > 63:
        return "must be no more than 63 bytes"
    return "" if not value or _NAME.match(value) else VALUE_RULE


class Requirement(NamedTuple):
    """One term. Operators: In, NotIn, Exists, DoesNotExist, Gt, Lt."""

    key: str
    operator: str
    values: frozenset[str] = frozenset()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Absence matches NotIn and DoesNotExist; Gt and Lt compare integers, and never match anything else."""
        value = labels.get(self.key)
        match self.operator:
            case "In":
                return value is not None and value in self.values
            case "NotIn":
                return value is None or value not in self.values
            case "Exists":
                return value is not None
            case "DoesNotExist":
                return value is None
        try:
            if value is None or len(self.values) != 1:
                return False
            bound = int(next(iter(self.values)))
            return int(value) > bound if self.operator == "Gt" else int(value) < bound
        except ValueError:
            return False

    def __str__(self) -> str:
        values = ",".join(sorted(self.values))
        match self.operator:
            case "In":
                return f"{self.key}={values}" if len(self.values) == 1 else f"{self.key} in ({values})"
            case "NotIn":
                return f"{self.key}!={values}" if len(self.values) == 1 else f"{self.key} notin ({values})"
            case "Exists":
                return self.key
            case "DoesNotExist":
                return f"!{self.key}"
        return f"{self.key}{'>' if self.operator == 'Gt' else '<'}{values}"


class LabelSelector:
    """A conjunction of requirements; the empty one matches everything."""

    __slots__ = ("_equalities", "requirements")

    def __init__(self, requirements: tuple[Requirement, ...] = (), *, nothing: bool = False) -> None:
        if nothing:  # metav1: a null selector selects no objects
            requirements = (Requirement("", "In"),)
        self.requirements = requirements
        simple = all(each.operator == "In" and len(each.values) == 1 for each in requirements)
        self._equalities = tuple((each.key, next(iter(each.values))) for each in requirements) if simple else None

    @property
    def empty(self) -> bool:
        return not self.requirements

    def matches(self, labels: Mapping[str, str] | None) -> bool:
        found = labels or {}
        if self._equalities is not None:
            return all(found.get(key) == value for key, value in self._equalities)
        return all(each.matches(found) for each in self.requirements)

    def __str__(self) -> str:
        return ",".join(str(each) for each in self.requirements)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LabelSelector) and set(self.requirements) == set(other.requirements)

    def __hash__(self) -> int:
        return hash(frozenset(self.requirements))

    @classmethod
    def nothing(cls) -> LabelSelector:
        """Matches no object."""
        return cls(nothing=True)

    @staticmethod
    @keep_short(1024)
    def parse(text: str) -> LabelSelector:
        """The query syntax: `a=b, c!=d, e in (f,g), h notin (i), j, !k, n>1`."""
        return LabelSelector(tuple(_Parser(text).requirements()))

    @classmethod
    def from_labels(cls, labels: Mapping[str, str] | None) -> LabelSelector:
        """Equality with every label (the selectors of Services and ReplicationControllers)."""
        return cls(tuple(Requirement(key, "In", frozenset((value,))) for key, value in sorted((labels or {}).items())))

    @classmethod
    def from_object(cls, selector: Any) -> LabelSelector:
        """metav1.LabelSelector as a dict or a typed model: null matches nothing, the empty one everything.

        Raises ValueError for an operator that does not exist or values that do not fit it.
        """
        if selector is None:
            return cls.nothing()

        def get(source: Any, name: str) -> Any:
            return source.get(name) if isinstance(source, Mapping) else getattr(source, name)

        terms = list(cls.from_labels(get(selector, "matchLabels")).requirements)
        for expression in get(selector, "matchExpressions") or ():
            operator, values = get(expression, "operator"), frozenset(get(expression, "values") or ())
            if operator not in ("In", "NotIn", "Exists", "DoesNotExist"):
                raise ValueError(f'"{operator}" is not a valid label selector operator')
            if (operator in ("In", "NotIn")) != bool(values):
                wants = "must be specified" if operator in ("In", "NotIn") else "may not be specified"
                raise ValueError(f"values {wants} when `operator` is '{operator}'")
            terms.append(Requirement(get(expression, "key"), operator, values))
        return cls(tuple(terms))


class _Parser:
    """Recursive descent over the query syntax; errors are worded as upstream words them."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens: list[str] = []
        position = 0
        while position < len(text.rstrip()):
            match = _TOKEN.match(text, position)
            if match is None:
                raise self._error("unexpected character")
            self._tokens.append(match.group(1) or match.group(2))
            position = match.end()
        self._at = 0

    def _error(self, why: str) -> ValueError:
        return ValueError(f"unable to parse requirement: {why}")

    def _peek(self) -> str:
        return self._tokens[self._at] if self._at < len(self._tokens) else ""

    def _next(self) -> str:
        token = self._peek()
        self._at += 1
        return token

    @staticmethod
    def _is_word(token: str) -> bool:
        return bool(token) and token not in ("==", "!=", "=", "!", ",", "(", ")", "<", ">")

    def requirements(self) -> list[Requirement]:
        found: list[Requirement] = []
        while token := self._peek():
            if token != "!" and not self._is_word(token):
                raise ValueError(f"found '{token}', expected: !, identifier, or 'end of string'")
            found.append(self._requirement())
            token = self._next()
            if token and token != ",":
                raise ValueError(f"found '{token}', expected: ',' or 'end of string'")
            following = self._peek()
            if token == "," and following != "!" and not self._is_word(following):
                raise ValueError(f"found '{following}', expected: identifier after ','")
        return sorted(found, key=lambda each: each.key)

    def _key(self) -> str:
        key = self._next()
        if not self._is_word(key):
            raise self._error(f"found '{key}', expected: identifier")
        why = qualified_name_error(key)
        if why:
            raise self._error(f'<nil>: Invalid value: "{key}": {why}')
        return key

    def _value(self, key: str) -> str:
        token = self._peek()
        value = self._next() if self._is_word(token) else ""
        why = label_value_error(value)
        if why:
            raise self._error(f'values[0][{key}]: Invalid value: "{value}": {why}')
        return value

    def _requirement(self) -> Requirement:
        if self._peek() == "!":
            self._next()
            return Requirement(self._key(), "DoesNotExist")
        key = self._key()
        operator = self._peek()
        if operator in ("", ","):
            return Requirement(key, "Exists")
        self._next()
        if operator in ("=", "=="):
            return Requirement(key, "In", frozenset((self._value(key),)))
        if operator == "!=":
            return Requirement(key, "NotIn", frozenset((self._value(key),)))
        if operator in (">", "<"):
            value = self._value(key)
            if not re.fullmatch(r"-?\d+", value):
                raise self._error(
                    f"values[0]: Invalid value: \"{value}\": for 'Gt', 'Lt' operators, the value must be an integer"
                )
            return Requirement(key, "Gt" if operator == ">" else "Lt", frozenset((value,)))
        if operator in ("in", "notin"):
            return Requirement(key, "In" if operator == "in" else "NotIn", self._set(key))
        raise self._error(f"found '{operator}', expected: in, notin, =, ==, !=, gt, lt")

    def _set(self, key: str) -> frozenset[str]:
        token = self._next()
        if token != "(":
            raise self._error(f"found '{token}' expected: '('")
        values: set[str] = set()
        while True:
            values.add(self._value(key))
            token = self._next()
            if token == ")":
                return frozenset(values)
            if token != ",":
                raise self._error(f"found '{token}', expected: ',' or ')'")


class FieldRequirement(NamedTuple):
    """One term of a field selector; `operator` is `=` or `!=`."""

    field: str
    operator: str
    value: str


class FieldSelector:
    """A conjunction of (in)equalities over the few fields that a kind supports."""

    __slots__ = ("requirements",)

    def __init__(self, requirements: tuple[FieldRequirement, ...] = ()) -> None:
        self.requirements = requirements

    @property
    def empty(self) -> bool:
        return not self.requirements

    def matches(self, get: Callable[[str], str]) -> bool:
        """`get(field)` tells the object's value, "" when it is unset."""
        return all((get(field) == value) == (operator == "=") for field, operator, value in self.requirements)

    def exact(self, field: str) -> str | None:
        """The value that `field` must equal, or None when the selector does not pin it."""
        return next((each.value for each in self.requirements if each.field == field and each.operator == "="), None)

    def __str__(self) -> str:
        return ",".join(f"{field}{operator}{_escape(value)}" for field, operator, value in self.requirements)

    @staticmethod
    @keep_short(1024)
    def parse(text: str) -> FieldSelector:
        """`a=b,c!=d`; `\\`, `,` and `=` in values are escaped by a backslash."""
        terms = []
        for term in _split_terms(text):
            for symbol in ("!=", "==", "="):
                field, found, value = term.partition(symbol)
                if found:
                    terms.append(FieldRequirement(field, "!=" if symbol == "!=" else "=", _unescape(value)))
                    break
            else:
                raise ValueError(f"invalid selector: '{text}'; can't understand '{term}'")
        return FieldSelector(tuple(terms))


def _split_terms(text: str) -> list[str]:
    return [term for term in re.split(r"(?<!\\),", text) if term]


def _escape(value: str) -> str:
    return re.sub(r"([\\,=])", r"\\\1", value)


def _unescape(value: str) -> str:
    if re.search(r"\\(?![\\,=])", value):
        raise ValueError(f"invalid field selector: invalid escape sequence in {value!r}")
    if re.search(r"(?<!\\)=", value):
        raise ValueError(f"invalid field selector: unescaped '=' in {value!r}")
    return re.sub(r"\\([\\,=])", r"\1", value)
