"""Go's wording: printed values and JSON syntax errors."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from machinery import golang


@pytest.mark.parametrize(
    ("value", "text"),
    [
        pytest.param({"b": [1, "x"], "a": None}, "map[a:<nil> b:[1 x]]", id="map"),
        pytest.param({"spec": {"replicas": "x"}}, "map[spec:map[replicas:x]]", id="nested"),
        pytest.param(True, "true", id="bool"),
        pytest.param([], "[]", id="empty"),
    ],
)
def test_printed(value: Any, text: str) -> None:
    assert golang.printed(value) == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param(b"", "unexpected end of JSON input", id="empty"),
        pytest.param(b'{"a":', "unexpected end of JSON input", id="cut"),
        pytest.param(b'{"a"', "unexpected end of JSON input", id="cut after key"),
        pytest.param(b"{a:1}", "invalid character 'a' looking for beginning of object key string", id="bare key"),
        pytest.param(b'{"a":1,}', "invalid character '}' looking for beginning of object key string", id="comma"),
        pytest.param(b'{"a" 1}', "invalid character '1' after object key", id="colon"),
        pytest.param(b'{"a":1 "b"}', "invalid character '\"' after object key:value pair", id="no comma"),
        pytest.param(b"[1 2]", "invalid character '2' after array element", id="array"),
        pytest.param(b"[1,]", "invalid character ']' looking for beginning of value", id="array comma"),
        pytest.param(b"nope", "invalid character 'o' in literal null (expecting 'u')", id="literal"),
        pytest.param(b"01", "invalid character '1' after top-level value", id="leading zero"),
        pytest.param(b"-x", "invalid character 'x' in numeric literal", id="minus"),
        pytest.param(b"1.x", "invalid character 'x' after decimal point in numeric literal", id="point"),
        pytest.param(b'"\n"', "invalid character '\\n' in string literal", id="newline"),
        pytest.param(b'"\\q"', "invalid character 'q' in string escape code", id="escape"),
        pytest.param(b"\x81", "invalid character '\\u0081' looking for beginning of value", id="byte"),
        pytest.param(b"[" * 20000, "exceeded max depth", id="deep"),
        pytest.param(b' {"a":[{},[],1.5e3,"x\\u00e9",true]} ', "", id="good"),
    ],
)
def test_json_error(text: bytes, message: str) -> None:
    assert golang.json_error(text) == message


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(), lambda c: st.lists(c) | st.dictionaries(st.text(), c)
    )
)
def test_good_json_has_no_error(value: Any) -> None:
    assert golang.json_error(json.dumps(value).encode()) == ""


@given(st.text(alphabet='{}[]",:1-e.\\utn a', max_size=12))
def test_agrees_with_python_about_what_is_json(text: str) -> None:
    try:
        json.loads(text)
    except ValueError:
        assert golang.json_error(text.encode())
    else:
        assert golang.json_error(text.encode()) == ""
