"""What definitions are refused for, besides their schemas."""

from __future__ import annotations

from typing import Any

import pytest

from apiserver.registry.validation.crds import validate_crd, validate_crd_update

Obj = dict[str, Any]
CLIENT = {"url": "https://example.com/convert"}


def definition(**spec: Any) -> Obj:
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": {"type": "object"}}}
    names = {"plural": "cats", "singular": "cat", "kind": "Cat", "listKind": "CatList"}
    full = {
        "group": "e.io",
        "scope": "Namespaced",
        "names": names,
        "versions": [version],
        "conversion": {"strategy": "None"},
        **spec,
    }
    return {"metadata": {"name": "cats.e.io"}, "spec": full}


def webhook(**settings: Any) -> Obj:
    given = {"clientConfig": CLIENT, "conversionReviewVersions": ["v1"], **settings}
    return {"conversion": {"strategy": "Webhook", "webhook": given}}


def test_a_good_definition() -> None:
    assert validate_crd(definition()) == []
    assert validate_crd(definition(**webhook())) == []


@pytest.mark.parametrize(
    ("spec", "finding"),
    [
        pytest.param(
            {"preserveUnknownFields": True},
            "spec.preserveUnknownFields: Invalid value: true: must be false",
            id="unknown fields",
        ),
        pytest.param(
            {"conversion": {"strategy": "Webhook"}},
            "spec.conversion.webhookClientConfig: Required value: required when strategy is set to Webhook",
            id="no webhook",
        ),
        pytest.param(
            webhook(clientConfig={}),
            "spec.conversion.webhookClientConfig: Required value: exactly one of url or service is required",
            id="no address",
        ),
        pytest.param(
            webhook(clientConfig={"url": "http://example.com"}),
            "spec.conversion.webhookClientConfig.url: Invalid value: \"http\": 'https' is the only allowed URL scheme; "
            "desired format: https://host[/path]",
            id="scheme",
        ),
        pytest.param(
            webhook(conversionReviewVersions=[]),
            "spec.conversion.conversionReviewVersions: Required value",
            id="no versions",
        ),
        pytest.param(
            webhook(conversionReviewVersions=["v0"]),
            'spec.conversion.conversionReviewVersions: Invalid value: ["v0"]: must include at least one of v1, v1beta1',
            id="unknown versions",
        ),
        pytest.param(
            {"conversion": {"strategy": "None", "webhook": {"clientConfig": CLIENT}}},
            "spec.conversion.webhookClientConfig: Forbidden: should not be set when strategy is not set to Webhook",
            id="a webhook for nothing",
        ),
    ],
)
def test_refusals(spec: Obj, finding: str) -> None:
    assert finding in [str(error) for error in validate_crd(definition(**spec))]


def test_what_an_older_server_has_let_pass_may_stay() -> None:
    old = definition(preserveUnknownFields=True)
    assert validate_crd_update(definition(preserveUnknownFields=True), old) == []
