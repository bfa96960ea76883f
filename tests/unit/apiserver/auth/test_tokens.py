from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from apiserver.auth.authentication import Authenticator, load_static_tokens, user_from_peer_cert
from apiserver.auth.service_accounts import Bound, ServiceAccountTokens, plan_claims
from apiserver.auth.user import UserInfo
from machinery.clock import VirtualClock
from machinery.errors import Unauthorized
from machinery.jwt import BadToken, TokenKey

ISSUER = "https://issuer"


@pytest.fixture(params=["RS256", "ES256"])
def key(request: pytest.FixtureRequest, tmp_path: Path) -> TokenKey:
    made: Any = (
        rsa.generate_private_key(65537, 2048) if request.param == "RS256" else ec.generate_private_key(ec.SECP256R1())
    )
    path = tmp_path / "key.pem"
    path.write_bytes(made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    loaded = TokenKey(path)
    assert loaded.algorithm == request.param
    return loaded


class Objects(dict[tuple[str, str, str], dict[str, Any]]):
    """The objects a cluster has, by (plural, namespace, name)."""

    async def read(self, plural: str, namespace: str, name: str) -> Mapping[str, Any] | None:
        return self.get((plural, namespace, name))


def cluster() -> Objects:
    return Objects(
        {
            ("serviceaccounts", "a", "robot"): {"name": "robot", "uid": "u1"},
            ("pods", "a", "web"): {"name": "web", "uid": "u2"},
        }
    )


def claims(clock: VirtualClock, **changes: Any) -> dict[str, Any]:
    made = plan_claims(
        issuer=ISSUER,
        namespace="a",
        name="robot",
        uid="u1",
        audiences=[ISSUER],
        issued=clock.now().timestamp(),
        seconds=600,
        token_id="id",
        bound=Bound("Pod", "web", "u2"),
    )
    return {**made, **changes}


async def test_a_token_names_its_account_and_pod(key: TokenKey) -> None:
    clock = VirtualClock()
    tokens = ServiceAccountTokens(clock, key, cluster().read, ISSUER)
    user = await tokens.authenticate(key.sign(claims(clock)))
    assert user.name == "system:serviceaccount:a:robot"
    assert user.groups == ("system:serviceaccounts", "system:serviceaccounts:a", "system:authenticated")
    assert user.extra["authentication.kubernetes.io/pod-name"] == ("web",)
    assert user.extra["authentication.kubernetes.io/credential-id"] == ("JTI=id",)


@pytest.mark.parametrize(
    ("changes", "gone"),
    [
        pytest.param({"iss": "https://other"}, None, id="foreign-issuer"),
        pytest.param({"aud": ["vault"]}, None, id="other-audience"),
        pytest.param({"exp": 0}, None, id="expired"),
        pytest.param({"nbf": 1 << 40}, None, id="not-yet"),
        pytest.param({"sub": "system:serviceaccount:a:root"}, None, id="inconsistent-subject"),
        pytest.param({"kubernetes.io": None}, None, id="no-private-claims"),
        pytest.param({}, ("serviceaccounts", "a", "robot"), id="account-gone"),
        pytest.param({}, ("pods", "a", "web"), id="pod-gone"),
    ],
)
async def test_tokens_that_do_not_count(
    key: TokenKey, changes: dict[str, Any], gone: tuple[str, str, str] | None
) -> None:
    clock, objects = VirtualClock(), cluster()
    if gone:
        del objects[gone]
    tokens = ServiceAccountTokens(clock, key, objects.read, ISSUER)
    with pytest.raises(Unauthorized):
        await tokens.authenticate(key.sign(claims(clock, **changes)))


async def test_a_recreated_account_does_not_inherit_tokens(key: TokenKey) -> None:
    clock, objects = VirtualClock(), cluster()
    objects[("serviceaccounts", "a", "robot")]["uid"] = "u9"
    with pytest.raises(Unauthorized):
        await ServiceAccountTokens(clock, key, objects.read, ISSUER).authenticate(key.sign(claims(clock)))


def _segment(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


@pytest.mark.parametrize("algorithm", ["none", "HS256", "RS512"])
def test_a_token_cannot_choose_its_algorithm(key: TokenKey, algorithm: str) -> None:
    _, body, signature = key.sign(claims(VirtualClock())).split(".")
    with pytest.raises(BadToken, match="algorithm"):
        key.verify(f"{_segment({'alg': algorithm})}.{body}.{signature}")


def test_a_changed_token_is_refused(key: TokenKey) -> None:
    head, body, signature = key.sign({"iss": ISSUER, "n": 1}).split(".")
    assert key.verify(f"{head}.{body}.{signature}") == {"iss": ISSUER, "n": 1}
    with pytest.raises(BadToken):
        key.verify(f"{head}.{_segment({'iss': ISSUER, 'n': 2})}.{signature}")


@pytest.mark.parametrize("token", ["", ".", "..", "a.b.c", "a.b", "\u00e9.b.c"])
def test_garbage_is_refused(key: TokenKey, token: str) -> None:
    with pytest.raises(BadToken):
        key.verify(token)


async def test_verified_tokens_are_remembered_for_a_moment(key: TokenKey) -> None:
    clock, objects = VirtualClock(), cluster()
    authenticator = Authenticator(clock, {}, ServiceAccountTokens(clock, key, objects.read, ISSUER))
    token = key.sign(claims(clock))
    await authenticator.token(token)
    objects.clear()
    assert (await authenticator.token(token)).name == "system:serviceaccount:a:robot"
    await clock.advance(11)
    with pytest.raises(Unauthorized):
        await authenticator.token(token)


def test_static_tokens(tmp_path: Path) -> None:
    path = tmp_path / "tokens.csv"
    path.write_text('t1,alice,u1,"dev,ops"\nt2,bob,u2\n\n')
    assert load_static_tokens(path) == {
        "t1": UserInfo("alice", ("dev", "ops", "system:authenticated"), "u1"),
        "t2": UserInfo("bob", ("system:authenticated",), "u2"),
    }
    path.write_text("only-a-token\n")
    with pytest.raises(ValueError, match=r"tokens\.csv:1: expected token,user,uid"):
        load_static_tokens(path)


@pytest.mark.parametrize(
    ("cert", "user"),
    [
        pytest.param(None, None, id="none"),
        pytest.param({"subject": ((("organizationName", "dev"),),)}, None, id="no-name"),
        pytest.param(
            {"subject": ((("organizationName", "dev"), ("organizationName", "ops")), (("commonName", "eve"),))},
            UserInfo("eve", ("dev", "ops", "system:authenticated")),
            id="two-groups",
        ),
    ],
)
def test_certificates(cert: dict[str, Any] | None, user: UserInfo | None) -> None:
    assert user_from_peer_cert(cert) == user
