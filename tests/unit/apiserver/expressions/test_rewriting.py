"""Texts as the library can take them."""

from __future__ import annotations

import pytest

from apiserver.expressions.compiling import compile_expression
from apiserver.expressions.rewriting import rewritten


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        pytest.param("self.a == 1", "self.a == 1", id="nothing"),
        pytest.param("'Object{a: 1}.validate(x)'", "'Object{a: 1}.validate(x)'", id="strings stay"),
        pytest.param("f.validate(g(x), 1) == y", "f.validate(g(x), 1)[?0] == y", id="an optional result"),
        pytest.param("format.named('a').value()", "format.named('a')[?0].value()", id="a named format"),
        pytest.param("self.validate == self.indexOf", "self.validate == self.indexOf", id="fields stay"),
        pytest.param("Object{spec: Object.spec{a: 1}}", '{"spec": {"a": 1}}', id="objects"),
        pytest.param("Object {a: x ? y : z, b: [Object.b{}]}", '{"a": x ? y : z, "b": [{}]}', id="conditions stay"),
        pytest.param("Object{?a: x, b: {k: v}}", '{?"a": x, "b": {k: v}}', id="optional fields, maps inside"),
        pytest.param(
            "[JSONPatch{op: 'add', path: '/a', value: Object.a{b: 1}}]",
            """[{"op": 'add', "path": '/a', "value": {"b": 1}}]""",
            id="patches",
        ),
        pytest.param("Object", "Object", id="no literal"),
        pytest.param("Object{a: f(b, c), d: [e, g]}", '{"a": f(b, c), "d": [e, g]}', id="calls and lists inside"),
    ],
)
def test_rewriting(text: str, wanted: str) -> None:
    assert rewritten(text) == wanted


def test_objects_become_maps() -> None:
    text = """Object{
        metadata: Object.metadata{labels: object.metadata.?labels.orValue({})}, // 'Object{'
        spec: Object.spec{?replicas: object.spec.?replicas, containers: [Object.spec.containers{name: "c"}]}
    }"""
    value = {"metadata": {"labels": {"a": "b"}}, "spec": {}}
    made = compile_expression(text, ("object",), "").evaluate({"object": value})
    assert made == {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c"}]}}
