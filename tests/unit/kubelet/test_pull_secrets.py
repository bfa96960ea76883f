"""Which pull secret opens which registry."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from kubelet.pull_secrets import Credential, credentials_for, repository_of


def secret(**auths: Any) -> dict[str, str]:
    """Keys use `__` for what Python names cannot hold."""
    document = {"auths": auths}
    return {".dockerconfigjson": base64.b64encode(json.dumps(document).encode()).decode()}


def entry(name: str) -> dict[str, str]:
    return {"auth": base64.b64encode(f"{name}:secret".encode()).decode()}


@pytest.mark.parametrize(
    ("image", "repository"),
    [
        ("busybox", "docker.io/library/busybox"),
        ("busybox:1.36", "docker.io/library/busybox"),
        ("team/app@sha256:" + "0" * 64, "docker.io/team/app"),
        ("localhost:5000/app:v1", "localhost:5000/app"),
        ("quay.io/a/b/c", "quay.io/a/b/c"),
    ],
)
def test_names(image: str, repository: str) -> None:
    assert repository_of(image) == repository


@pytest.mark.parametrize(
    ("key", "image", "applies"),
    [
        pytest.param("registry.example.com", "registry.example.com/app", True, id="host"),
        pytest.param("https://registry.example.com/v1/", "registry.example.com/app", True, id="url"),
        pytest.param("registry.example.com", "registry.example.com:5000/app", False, id="other-port"),
        pytest.param("registry.example.com:5000", "registry.example.com:5000/app", True, id="port"),
        pytest.param("*.example.com", "eu.example.com/app", True, id="glob"),
        pytest.param("*.example.com", "a.eu.example.com/app", False, id="one-part-only"),
        pytest.param("quay.io/team", "quay.io/team/app", True, id="path"),
        pytest.param("quay.io/team", "quay.io/other/app", False, id="other-path"),
        pytest.param("https://index.docker.io/v1/", "busybox", True, id="docker-hub"),
        pytest.param("quay.io", "busybox", False, id="other-host"),
    ],
)
def test_matching(key: str, image: str, applies: bool) -> None:
    found = credentials_for(image, [secret(**{key: entry("robot")})])
    assert [(each.username, each.password) for each in found] == ([("robot", "secret")] if applies else [])


def test_the_more_specific_key_is_tried_first() -> None:
    auths = {"quay.io": entry("wide"), "quay.io/team": entry("narrow")}
    assert [each.username for each in credentials_for("quay.io/team/app", [secret(**auths)])] == ["narrow", "wide"]


def test_old_and_token_forms_count_and_garbage_does_not() -> None:
    old = {".dockercfg": base64.b64encode(json.dumps({"quay.io": {"username": "u", "password": "p"}}).encode())}
    token = secret(**{"quay.io": {"identitytoken": "t"}})
    garbage = [{".dockerconfigjson": "!"}, {".dockerconfigjson": base64.b64encode(b"[1]").decode()}, {"other": "x"}]
    assert credentials_for("quay.io/app", [old, token, *garbage]) == [
        Credential("u", "p", server="quay.io"),
        Credential(identity_token="t", server="quay.io"),
    ]
