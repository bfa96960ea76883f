from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apiserver.streams.proxy import answer_headers, request_headers
from apiserver.streams.proxy_targets import (
    Backend,
    Name,
    parse_name,
    plan_node,
    plan_pod,
    plan_service,
    rewrite_location,
    sub_path,
)
from machinery.errors import BadRequest, ServiceUnavailable


@pytest.mark.parametrize(
    ("text", "name"),
    [
        pytest.param("web", Name("http", "web", ""), id="name"),
        pytest.param("web:80", Name("http", "web", "80"), id="port"),
        pytest.param("https:web:443", Name("https", "web", "443"), id="scheme"),
        pytest.param("https:web:", Name("https", "web", ""), id="scheme-only"),
        pytest.param(":web:http", Name("http", "web", "http"), id="empty-scheme"),
    ],
)
def test_parse_name(text: str, name: Name) -> None:
    assert parse_name(text, "pod") == name


@pytest.mark.parametrize("text", ["", ":80", "ftp:web:21", "a:b:c:d", "http::80"])
def test_bad_names(text: str) -> None:
    with pytest.raises(BadRequest) as caught:
        parse_name(text, "service")
    assert caught.value.message == f'invalid service request "{text}"'


@given(st.text(max_size=30))
def test_no_name_breaks_the_parser(text: str) -> None:
    with contextlib.suppress(BadRequest):
        assert parse_name(text, "pod").name in text


def pod(ip: str, *ports: int) -> dict[str, Any]:
    return {
        "spec": {"containers": [{}, {"ports": [{"containerPort": port} for port in ports]}]},
        "status": {"podIP": ip},
    }


@pytest.mark.parametrize(
    ("name", "found", "backend"),
    [
        pytest.param(Name("http", "web", "81"), pod("10.0.0.1", 80), Backend("http", "10.0.0.1", "81"), id="named"),
        pytest.param(Name("http", "web", ""), pod("10.0.0.1", 80, 90), Backend("http", "10.0.0.1", "80"), id="first"),
        pytest.param(Name("https", "web", ""), pod("10.0.0.1"), Backend("https", "10.0.0.1", ""), id="schemes-own"),
    ],
)
def test_plan_pod(name: Name, found: dict[str, Any], backend: Backend) -> None:
    assert plan_pod(name, found) == backend


@pytest.mark.parametrize("ip", ["", "127.0.0.1", "169.254.169.254", "::1", "224.0.0.1", "0.0.0.0", "host"])
def test_addresses_that_are_not_for_clients(ip: str) -> None:
    with pytest.raises(BadRequest, match="address not allowed"):
        plan_pod(Name("http", "web", "80"), pod(ip))
    with pytest.raises(BadRequest, match="address not allowed"):
        plan_node(Name("http", "n", "80"), f"{ip}:10250")


@pytest.mark.parametrize(
    ("backend", "address"),
    [
        pytest.param(Backend("http", "h", ""), ("h", 80), id="http"),
        pytest.param(Backend("https", "h", ""), ("h", 443), id="https"),
        pytest.param(Backend("https", "h", "8443"), ("h", 8443), id="number"),
    ],
)
def test_address(backend: Backend, address: tuple[str, int]) -> None:
    assert backend.address == address


@pytest.mark.parametrize("port", ["web", "0", "65536", "-1", "999999999", "٣"])
def test_ports_that_are_none(port: str) -> None:
    with pytest.raises(ServiceUnavailable, match="unknown port"):
        _ = Backend("http", "h", port).address


def service(*ports: tuple[str, int]) -> dict[str, Any]:
    return {"spec": {"ports": [{"name": name, "port": port} for name, port in ports]}}


def piece(name: str, port: int, *endpoints: tuple[str, bool]) -> dict[str, Any]:
    listed = [{"addresses": [address], "conditions": {"ready": ready}} for address, ready in endpoints]
    return {"ports": [{"name": name, "port": port}], "endpoints": listed}


@pytest.mark.parametrize(
    ("text", "address"),
    [
        pytest.param("web:80", ("10.0.0.2", 8080), id="number-of-a-named-port"),
        pytest.param("web:http", ("10.0.0.2", 8080), id="name"),
        pytest.param("https:web:tls", ("10.0.0.2", 8443), id="another"),
    ],
)
def test_plan_service(text: str, address: tuple[str, int]) -> None:
    slices = [
        piece("http", 8080, ("10.0.0.1", False), ("10.0.0.2", True)),
        piece("tls", 8443, ("10.0.0.2", True), ("127.0.0.1", True)),
    ]
    found = service(("http", 80), ("tls", 443))
    chosen = plan_service(parse_name(text, "service"), text, found, slices, lambda backends: backends[-1])
    assert chosen.address == address


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("web:81", 'no service port 81 found for service "web"', id="no-port"),
        pytest.param("web:http", 'no endpoints available for service "web:http"', id="not-ready"),
        pytest.param("web", 'no endpoints available for service "web"', id="needs-a-name"),
    ],
)
def test_no_endpoint(text: str, message: str) -> None:
    slices = [piece("http", 8080, ("10.0.0.1", False))]
    with pytest.raises(ServiceUnavailable) as caught:
        plan_service(parse_name(text, "service"), text, service(("http", 80)), slices, lambda backends: backends[0])
    assert caught.value.message == message


@pytest.mark.parametrize(
    ("path", "rest"),
    [
        pytest.param(b"/api/v1/namespaces/a/pods/web/proxy", "", id="bare"),
        pytest.param(b"/api/v1/namespaces/a/pods/web/proxy/", "/", id="slash"),
        pytest.param(b"/api/v1/namespaces/a/services/http:web:80/proxy/x%2Fy/", "/x%2Fy/", id="quoted"),
        pytest.param(b"/api/v1/nodes/n/proxy/stats/summary", "/stats/summary", id="node"),
        pytest.param(b"/api/v1/nodes/n:80/proxy", "", id="node-bare"),
    ],
)
def test_sub_path(path: bytes, rest: str) -> None:
    assert sub_path(path) == rest


@pytest.mark.parametrize(
    ("location", "rewritten"),
    [
        pytest.param("/d/", "/p/proxy/d/", id="absolute-path"),
        pytest.param("http://10.0.0.1:80/d?x=1", "/p/proxy/d?x=1", id="own-host"),
        pytest.param("http://elsewhere/d", "http://elsewhere/d", id="another-host"),
        pytest.param("d/", "d/", id="relative"),
        pytest.param("/p/proxy/d", "/p/proxy/d", id="already"),
        pytest.param("http://[", "http://[", id="no-url"),
    ],
)
def test_rewrite_location(location: str, rewritten: str) -> None:
    assert rewrite_location(location, ("10.0.0.1:80",), "/p/proxy") == rewritten


def test_headers_that_cross() -> None:
    sent = [
        (b"host", b"api"),
        (b"authorization", b"Bearer secret"),
        (b"impersonate-user", b"root"),
        (b"connection", b"x"),
        (b"x-forwarded-for", b"1.1.1.1"),
        (b"cookie", b"a=b"),
    ]
    assert request_headers(sent, "2.2.2.2", "/uri", "https") == [
        (b"host", b"api"),
        (b"cookie", b"a=b"),
        (b"x-forwarded-for", b"1.1.1.1, 2.2.2.2"),
        (b"x-forwarded-host", b"api"),
        (b"x-forwarded-proto", b"https"),
        (b"x-forwarded-uri", b"/uri"),
    ]
    answered = [(b"Location", b"/a"), (b"Access-Control-Allow-Origin", b"*"), (b"Date", b"x"), (b"Set-Cookie", b"c")]
    assert answer_headers(answered, (), "/proxy") == [(b"location", b"/proxy/a"), (b"set-cookie", b"c")]
