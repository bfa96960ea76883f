"""Expressions: what is certainly broken is refused, everything else is left to a compiler."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apiserver.registry.validation.expressions import syntax_error


@pytest.mark.parametrize(
    "expression",
    [
        "self > 0",
        "object.spec.replicas <= 5 && has(object.metadata.labels)",
        "self.all(x, x.startsWith('a]'))",
        '"(" + self in ["a", "b"] ? {"k": 1.5} : {}',
        "!self.matches(r'^[a-z]+\\d$')",
        "device.attributes['x'].?y.orValue(-1) == 0u",
        "size(self) % 2 == 0 // even",
    ],
)
def test_complete(expression: str) -> None:
    assert syntax_error(expression) == ""


@pytest.mark.parametrize(
    ("expression", "where"),
    [
        pytest.param("self >", "1:7", id="operator"),
        pytest.param("object.", "1:8", id="dot"),
        pytest.param("has(self.a", "1:11", id="bracket"),
        pytest.param("self.a)", "1:7", id="closing"),
        pytest.param("a == 'b", "1:6", id="quote"),
        pytest.param("", "1:1", id="empty"),
        pytest.param("[\n", "2:1", id="open-at-a-line-end"),
        pytest.param("a &&\n ||", "2:4", id="second-line"),
    ],
)
def test_broken(expression: str, where: str) -> None:
    assert syntax_error(expression).startswith(f"ERROR: <input>:{where}: Syntax error")


@given(st.text(max_size=40))
def test_any_text_is_judged(expression: str) -> None:
    assert isinstance(syntax_error(expression), str)
