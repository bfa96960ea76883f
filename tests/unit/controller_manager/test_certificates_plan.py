"""What certificate requests ask for, who gets one without a person, for how long, and when a request may go."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from api.models import certificates_v1
from controller_manager.certificates import cleaning, requests
from controller_manager.certificates.approving import plan_reviews
from controller_manager.certificates.signing import issue, lifetime
from machinery.clock import VirtualClock
from machinery.meta import rfc3339
from machinery.tls import CertificateAuthority

KEY = ec.generate_private_key(ec.SECP256R1())
NODE_USAGES = ("client auth", "digital signature")
Request = certificates_v1.CertificateSigningRequest


def made(
    signer: str = requests.KUBELET_CLIENT,
    common_name: str = "system:node:n1",
    organizations: tuple[str, ...] = ("system:nodes",),
    usages: tuple[str, ...] = NODE_USAGES,
    sans: tuple[x509.GeneralName, ...] = (),
    username: str = "system:bootstrap:abcdef",
    **more: Any,
) -> Request:
    parts = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, each) for each in organizations]
    builder = x509.CertificateSigningRequestBuilder().subject_name(
        x509.Name([*parts, x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    )
    if sans:
        builder = builder.add_extension(x509.SubjectAlternativeName(sans), critical=False)
    pem = builder.sign(KEY, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    spec = {"request": base64.b64encode(pem).decode(), "signerName": signer, "usages": usages, "username": username}
    raw = {"metadata": {"name": "r", **more.pop("metadata", {})}, "spec": spec, "status": more}
    return msgspec.convert(raw, Request, strict=False)


DNS = x509.DNSName("n1")


@pytest.mark.parametrize(
    ("request_", "why"),
    [
        pytest.param(made(), "", id="kubelet-client"),
        pytest.param(made(sans=(DNS,)), "DNS subjectAltNames are not allowed", id="client-with-names"),
        pytest.param(made(common_name="n1"), "subject common name does not begin with system:node:", id="no-node"),
        pytest.param(
            made(organizations=("system:nodes", "x")), "subject organization is not system:nodes", id="more-groups"
        ),
        pytest.param(
            made(usages=("client auth",)),
            "usages did not match [client auth digital signature key encipherment]",
            id="usages",
        ),
        pytest.param(
            made(requests.KUBELET_SERVING, sans=(DNS,), usages=("server auth", "digital signature")), "", id="serving"
        ),
        pytest.param(
            made(requests.KUBELET_SERVING, sans=(x509.RFC822Name("a@b"), DNS), usages=("server auth",)),
            "Email subjectAltNames are not allowed",
            id="serving-with-mail",
        ),
        pytest.param(
            made(requests.CLIENT, usages=("digital signature",)),
            "missing required usage for client certificate: client auth",
            id="client-without-purpose",
        ),
        pytest.param(made(requests.LEGACY, "anything", ("x",), ("any",)), "", id="legacy"),
    ],
)
def test_what_signers_grant(request_: Request, why: str) -> None:
    wish = requests.parse(request_)
    if why:
        with pytest.raises(requests.BadRequest) as caught:
            requests.check(request_.spec.signerName, wish)
        assert str(caught.value) == why
    else:
        requests.check(request_.spec.signerName, wish)


@pytest.mark.parametrize("text", ["", "bm90IHBlbQ==", "!!"])
def test_what_cannot_be_read_is_refused(text: str) -> None:
    broken = made()
    broken.spec.request = text
    with pytest.raises(requests.BadRequest):
        requests.parse(broken)


@pytest.mark.parametrize(
    ("request_", "asked"),
    [
        pytest.param(made(), ["nodeclient"], id="joining"),
        pytest.param(made(username="system:node:n1"), ["selfnodeclient", "nodeclient"], id="renewing"),
        pytest.param(made(username="system:node:n2"), ["nodeclient"], id="for-another"),
        pytest.param(made(requests.CLIENT), [], id="other-signer"),
        pytest.param(made(organizations=("dev",)), [], id="no-kubelet"),
    ],
)
def test_who_may_be_approved_without_a_person(request_: Request, asked: list[str]) -> None:
    assert [name for name, _ in plan_reviews(request_, requests.parse(request_))] == asked


@pytest.mark.parametrize(("asked", "life"), [(None, 365 * 86400), (60, 600), (3600, 3600), (10**9, 365 * 86400)])
def test_lifetimes_are_bounded(asked: int | None, life: int) -> None:
    assert lifetime(asked) == timedelta(seconds=life)


def test_a_certificate_says_what_was_asked_and_no_more(tmp_path: Path) -> None:
    authority = CertificateAuthority.create(tmp_path)
    now = datetime.now(UTC).replace(microsecond=0)
    wish = requests.parse(made(requests.KUBELET_SERVING, sans=(DNS,), usages=("server auth", "digital signature")))
    ca, key = authority.cert_path.read_bytes(), (tmp_path / "ca.key").read_bytes()
    issued = x509.load_pem_x509_certificate(issue(wish, ca, key, life=timedelta(days=10), now=now))
    issued.verify_directly_issued_by(x509.load_pem_x509_certificate(ca))
    assert issued.not_valid_before_utc == now - timedelta(minutes=5)
    assert issued.not_valid_after_utc == now + timedelta(days=10) - timedelta(minutes=5)
    find = issued.extensions.get_extension_for_class
    assert not find(x509.BasicConstraints).value.ca
    usage = find(x509.KeyUsage).value
    assert (usage.digital_signature, usage.key_cert_sign) == (True, False)
    assert [each.dotted_string for each in find(x509.ExtendedKeyUsage).value] == ["1.3.6.1.5.5.7.3.1"]
    assert find(x509.SubjectAlternativeName).value.get_values_for_type(x509.DNSName) == ["n1"]


@pytest.mark.parametrize(
    ("conditions", "age", "goes"),
    [
        pytest.param([], 23 * 3600, False, id="pending"),
        pytest.param([], 24 * 3600, True, id="pending-too-long"),
        pytest.param(["Approved"], 3500, False, id="approved"),
        pytest.param(["Approved"], 3600, True, id="approved-long-ago"),
        pytest.param(["Denied"], 3600, True, id="denied-long-ago"),
        pytest.param(["Failed"], 3600, True, id="failed-long-ago"),
    ],
)
def test_when_requests_go(conditions: list[str], age: int, goes: bool) -> None:
    clock = VirtualClock()
    then = rfc3339(clock.now() - timedelta(seconds=age))
    told = [{"type": kind, "status": "True", "lastUpdateTime": then} for kind in conditions]
    request_ = made(metadata={"creationTimestamp": then}, conditions=told)
    assert (cleaning.time_left(request_, clock) <= 0) is goes
