"""Nulls in definitions."""

from __future__ import annotations

from typing import Any

import pytest

from apiserver.crd.tidy import tidied


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        pytest.param({"versions": [None]}, {"versions": [{}]}, id="an element"),
        pytest.param({"conversion": None}, {}, id="a field"),
        pytest.param({"properties": {"a": None}}, {"properties": {"a": {}}}, id="an entry of a map"),
        pytest.param({"enum": [None], "default": None}, {"enum": [None], "default": None}, id="JSON of the schema"),
        pytest.param(
            {"properties": {"default": {"type": None}}}, {"properties": {"default": {}}}, id="a property named default"
        ),
        pytest.param({"required": [None]}, {"required": [""]}, id="a text"),
    ],
)
def test_tidied(given: Any, wanted: Any) -> None:
    assert tidied(given) == wanted
