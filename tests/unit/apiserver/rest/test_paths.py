from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apiserver.rest.paths import RequestInfo, parse, selected_name


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        pytest.param("GET", "/api/v1/pods", ("list", "", "v1", "", "pods", "", ""), id="across-namespaces"),
        pytest.param("GET", "/api/v1/nodes/n1", ("get", "", "v1", "", "nodes", "n1", ""), id="cluster-scoped"),
        pytest.param("GET", "/api/v1/namespaces", ("list", "", "v1", "", "namespaces", "", ""), id="namespaces"),
        pytest.param("GET", "/api/v1/namespaces/a", ("get", "", "v1", "a", "namespaces", "a", ""), id="namespace"),
        pytest.param(
            "PUT",
            "/api/v1/namespaces/a/finalize",
            ("update", "", "v1", "a", "namespaces", "a", "finalize"),
            id="finalize",
        ),
        pytest.param(
            "GET", "/api/v1/namespaces/a/status", ("get", "", "v1", "a", "namespaces", "a", "status"), id="ns-status"
        ),
        pytest.param(
            "POST",
            "/api/v1/namespaces/a/pods/b/binding",
            ("create", "", "v1", "a", "pods", "b", "binding"),
            id="binding",
        ),
        pytest.param(
            "DELETE",
            "/apis/apps/v1/namespaces/a/deployments",
            ("deletecollection", "apps", "v1", "a", "deployments", "", ""),
            id="delete-collection",
        ),
        pytest.param(
            "PATCH",
            "/apis/apps/v1/namespaces/a/deployments/web/scale",
            ("patch", "apps", "v1", "a", "deployments", "web", "scale"),
            id="patch-scale",
        ),
        pytest.param(
            "GET", "/api/v1/watch/namespaces/a/pods/b", ("watch", "", "v1", "a", "pods", "b", ""), id="legacy-watch"
        ),
        pytest.param("GET", "/api/v1/pods/", ("list", "", "v1", "", "pods", "", ""), id="trailing-slash"),
        pytest.param("HEAD", "/api/v1/pods", ("list", "", "v1", "", "pods", "", ""), id="head"),
    ],
)
def test_resource_paths(method: str, path: str, expected: tuple[str, ...]) -> None:
    info = parse(method, path)

    assert info.is_resource
    found = (info.verb, info.group, info.version, info.namespace, info.resource, info.name, info.subresource)
    assert found == expected


@pytest.mark.parametrize("path", ["/", "/api", "/api/v1", "/api/v1/", "/apis/apps/v1", "/healthz/ping", ""])
def test_other_paths(path: str) -> None:
    assert parse("GET", path) == RequestInfo(path, "get")


def test_only_proxies_go_deeper() -> None:
    assert parse("GET", "/api/v1/namespaces/a/pods/b/log/c").deep
    proxy = parse("GET", "/api/v1/namespaces/a/services/b/proxy/c/d")

    assert (proxy.subresource, proxy.rest) == ("proxy", "c/d")


@given(st.sampled_from(["GET", "POST", "PUT", "PATCH", "DELETE", "BREW"]), st.text("/abnspiw", max_size=40))
def test_no_path_breaks_the_parser(method: str, path: str) -> None:
    info = parse(method, f"/api{path}")
    # Upstream has no verb for other methods on resources; on plain paths the method is the verb.
    assert bool(info.verb) is (method != "BREW" or not info.is_resource or info.legacy_watch)


@pytest.mark.parametrize(
    ("selector", "name"),
    [
        pytest.param("metadata.name=web", "web", id="equals"),
        pytest.param("a=b,metadata.name==web", "web", id="double"),
        pytest.param("metadata.namespace=web", "", id="other-field"),
        pytest.param("", "", id="none"),
    ],
)
def test_selected_name(selector: str, name: str) -> None:
    assert selected_name(selector) == name
