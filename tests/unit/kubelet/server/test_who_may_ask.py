"""Who may ask a kubelet: the API server's client certificate, or a whole group name; never a part of one."""

from __future__ import annotations

from pathlib import Path

import pytest

from kubelet.server.service import allowed
from machinery.tls import CertificateAuthority


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> CertificateAuthority:
    folder: Path = tmp_path_factory.mktemp("pki")
    return CertificateAuthority.create(folder)


@pytest.mark.parametrize(
    ("common_name", "organizations", "may"),
    [
        pytest.param("kube-apiserver-kubelet-client", (), True, id="the-api-server"),
        pytest.param("admin", ("dev", "system:masters"), True, id="master"),
        pytest.param("alice", ("dev",), False, id="somebody"),
        pytest.param("alice", ("system:masters-of-none",), False, id="longer-group"),
        pytest.param("x, O=system:masters", (), False, id="group-in-the-name"),
        pytest.param("alice", ("a/O=system:masters",), False, id="group-in-a-group"),
        pytest.param("kube-apiserver-kubelet-client2", (), False, id="longer-name"),
    ],
)
def test_who_may_ask(
    authority: CertificateAuthority, common_name: str, organizations: tuple[str, ...], may: bool
) -> None:
    pem, _ = authority.issue(common_name, organizations)
    subject = f"CN={common_name}" + "".join(f",O={each}" for each in organizations)
    context = {
        "x509_common_name": [common_name.encode()],
        "x509_pem_cert": [pem],
        "x509_subject": [subject.encode()],
    }
    assert allowed(context) is may


@pytest.mark.parametrize("context", [{}, {"x509_pem_cert": [b"garbage"]}])
def test_nobody_without_a_certificate(context: dict[str, list[bytes]]) -> None:
    assert not allowed(context)
