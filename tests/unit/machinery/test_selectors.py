"""Selectors: what they match, and what is no selector."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from machinery.selectors import FieldSelector, LabelSelector

WEB = {"app": "web", "tier": "front", "n": "5"}


@pytest.mark.parametrize(
    ("text", "matches"),
    [
        pytest.param("", True, id="empty matches all"),
        pytest.param("app=web", True, id="equal"),
        pytest.param("app==web", True, id="double equal"),
        pytest.param("app=db", False, id="not equal"),
        pytest.param("app!=db", True, id="unequal"),
        pytest.param("missing!=x", True, id="absence is unequal"),
        pytest.param("app in (web, db)", True, id="in"),
        pytest.param("app notin (web,db)", False, id="notin"),
        pytest.param("missing notin (a)", True, id="absence is not in"),
        pytest.param("app", True, id="exists"),
        pytest.param("!app", False, id="does not exist"),
        pytest.param("n>4,n<6", True, id="numbers"),
        pytest.param("app>4", False, id="no number"),
        pytest.param("app=web,tier=back", False, id="conjunction"),
        pytest.param("app in (), tier", False, id="empty set is a set of the empty value"),
    ],
)
def test_labels(text: str, matches: bool) -> None:
    assert LabelSelector.parse(text).matches(WEB) is matches


UNPARSED = "unable to parse requirement: "


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("a=b=c", "found '=', expected: ',' or 'end of string'"),
        (",", "found ',', expected: !, identifier, or 'end of string'"),
        ("=a", "found '=', expected: !, identifier, or 'end of string'"),
        ("a,,b", "found ',', expected: identifier after ','"),
        ("a,", "found '', expected: identifier after ','"),
        ("a b", UNPARSED + "found 'b', expected: in, notin, =, ==, !=, gt, lt"),
        ("a in", UNPARSED + "found '' expected: '('"),
        ("a in (b", UNPARSED + "found '', expected: ',' or ')'"),
        ("!", UNPARSED),
        ("a=-x", UNPARSED),
        ("-a", UNPARSED),
        ("a>x", UNPARSED),
        ("a/b/c=d", UNPARSED),
    ],
)
def test_no_label_selectors(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(why)}"):
        LabelSelector.parse(text)


@pytest.mark.parametrize(
    ("selector", "matches"),
    [
        pytest.param(None, False, id="null matches nothing"),
        pytest.param({}, True, id="empty matches everything"),
        pytest.param({"matchLabels": {"app": "web"}}, True, id="labels"),
        pytest.param(
            {"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["web"]}]}, False, id="not in"
        ),
        pytest.param({"matchExpressions": [{"key": "x", "operator": "DoesNotExist"}]}, True, id="absent"),
    ],
)
def test_objects(selector: dict[str, object] | None, matches: bool) -> None:
    assert LabelSelector.from_object(selector).matches(WEB) is matches


@pytest.mark.parametrize(
    "expression",
    [
        pytest.param({"key": "a", "operator": "Near", "values": ["b"]}, id="operator"),
        pytest.param({"key": "a", "operator": "In"}, id="no values"),
        pytest.param({"key": "a", "operator": "Exists", "values": ["b"]}, id="values"),
    ],
)
def test_no_objects(expression: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"operator|values"):
        LabelSelector.from_object({"matchExpressions": [expression]})


_word = st.from_regex(r"[a-z]([a-z0-9]{0,5}[a-z0-9])?", fullmatch=True)
_term = st.one_of(
    st.builds("{}={}".format, _word, _word),
    st.builds("{}!={}".format, _word, _word),
    st.builds("{} in ({},{})".format, _word, _word, _word),
    st.builds("{} notin ({})".format, _word, _word),
    _word,
    st.builds("!{}".format, _word),
)


@given(st.lists(_term, max_size=4).map(",".join), st.dictionaries(_word, _word, max_size=3))
def test_text_of_a_selector_selects_the_same(text: str, labels: dict[str, str]) -> None:
    selector = LabelSelector.parse(text)
    assert LabelSelector.parse(str(selector)) == selector
    assert LabelSelector.parse(str(selector)).matches(labels) == selector.matches(labels)


@pytest.mark.parametrize(
    ("text", "matches"),
    [
        pytest.param("metadata.name=web", True, id="equal"),
        pytest.param("metadata.name!=web", False, id="unequal"),
        pytest.param("metadata.name==web,spec.nodeName=", True, id="unset is empty"),
        pytest.param(r"metadata.name=a\,b", False, id="escaped comma"),
    ],
)
def test_fields(text: str, matches: bool) -> None:
    fields = {"metadata.name": "web"}
    assert FieldSelector.parse(text).matches(lambda field: fields.get(field, "")) is matches


@pytest.mark.parametrize("text", ["metadata.name", "a=b=c", r"a=b\x"])
def test_no_field_selectors(text: str) -> None:
    with pytest.raises(ValueError, match="invalid"):
        FieldSelector.parse(text)


def test_a_pinned_field_is_told() -> None:
    selector = FieldSelector.parse("spec.nodeName=worker-1,status.phase!=Failed")
    assert selector.exact("spec.nodeName") == "worker-1"
    assert selector.exact("status.phase") is None
