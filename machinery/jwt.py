"""JSON Web Tokens: those of service accounts, and the detached signatures of bootstrap tokens.

Owns: the RS256 and ES256 forms of RFC 7515 and the key's identity. Never judges claims (`service_accounts.py` does).
`cryptography` is imported with the first token: a cluster without service account tokens never pays for it.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

    PrivateKey = RSAPrivateKey | EllipticCurvePrivateKey

_P256_BYTES = 32


class BadToken(ValueError):
    """Not a token of this key."""


def _encode(raw: bytes) -> bytes:
    return base64.urlsafe_b64encode(raw).rstrip(b"=")


def _decode(text: bytes) -> bytes:
    try:
        return base64.urlsafe_b64decode(text + b"=" * (-len(text) % 4))
    except ValueError as exc:
        raise BadToken("malformed token") from exc


class TokenKey:
    """A cluster's signing key. Loaded at the first use; `path` must hold an unencrypted PEM private key."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._key: PrivateKey | None = None
        self._id = ""

    def _load(self) -> PrivateKey:
        if self._key is None:
            from cryptography.hazmat.primitives.asymmetric import ec, rsa
            from cryptography.hazmat.primitives.serialization import (
                Encoding,
                PublicFormat,
                load_pem_private_key,
            )

            key = load_pem_private_key(self._path.read_bytes(), None)
            if not isinstance(key, (rsa.RSAPrivateKey, ec.EllipticCurvePrivateKey)):
                raise ValueError(f"{self._path}: neither an RSA nor an EC key")
            der = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
            self._id = _encode(hashlib.sha256(der).digest()).decode()
            self._key = key
        return self._key

    @property
    def algorithm(self) -> str:
        from cryptography.hazmat.primitives.asymmetric import rsa

        return "RS256" if isinstance(self._load(), rsa.RSAPrivateKey) else "ES256"

    def sign(self, claims: dict[str, Any]) -> str:
        """A compact JWS of the claims."""
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
        from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

        key = self._load()
        header = {"alg": self.algorithm, "kid": self._id}
        signed = b".".join(_encode(msgspec.json.encode(part)) for part in (header, claims))
        if isinstance(key, rsa.RSAPrivateKey):
            signature = key.sign(signed, padding.PKCS1v15(), hashes.SHA256())
        else:
            r, s = decode_dss_signature(key.sign(signed, ec.ECDSA(hashes.SHA256())))
            signature = r.to_bytes(_P256_BYTES, "big") + s.to_bytes(_P256_BYTES, "big")
        return (signed + b"." + _encode(signature)).decode()

    def verify(self, token: str) -> dict[str, Any]:
        """The claims of a token this key signed. Raises BadToken."""
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
        from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

        signed, _, tail = token.encode().rpartition(b".")
        head, dot, body = signed.partition(b".")
        if not dot:
            raise BadToken("malformed token")
        signature = _decode(tail)
        key = self._load()
        try:
            # The algorithm is the key's, never the header's: a token cannot choose how it is checked.
            if _object(head).get("alg") != self.algorithm:
                raise BadToken("unexpected signature algorithm")
            if isinstance(key, rsa.RSAPrivateKey):
                key.public_key().verify(signature, signed, padding.PKCS1v15(), hashes.SHA256())
            else:
                if len(signature) != 2 * _P256_BYTES:
                    raise BadToken("malformed signature")
                r, s = (int.from_bytes(part, "big") for part in (signature[:_P256_BYTES], signature[_P256_BYTES:]))
                key.public_key().verify(encode_dss_signature(r, s), signed, ec.ECDSA(hashes.SHA256()))
        except InvalidSignature as exc:
            raise BadToken("invalid signature") from exc
        return _object(body)

    def jwks(self) -> dict[str, Any]:
        """The public half as a JSON Web Key Set."""
        from cryptography.hazmat.primitives.asymmetric import rsa

        key = self._load()
        common = {"use": "sig", "kid": self._id, "alg": self.algorithm}
        if isinstance(key, rsa.RSAPrivateKey):
            numbers = key.public_key().public_numbers()
            e, n = (
                _encode(value.to_bytes((value.bit_length() + 7) // 8, "big")).decode()
                for value in (numbers.e, numbers.n)
            )
            return {"keys": [{**common, "kty": "RSA", "n": n, "e": e}]}
        point = key.public_key().public_numbers()
        x, y = (_encode(value.to_bytes(_P256_BYTES, "big")).decode() for value in (point.x, point.y))
        return {"keys": [{**common, "kty": "EC", "crv": "P-256", "x": x, "y": y}]}


def _object(part: bytes) -> dict[str, Any]:
    try:
        value = msgspec.json.decode(_decode(part))
    except (msgspec.DecodeError, RecursionError) as exc:
        raise BadToken("malformed token") from exc
    if not isinstance(value, dict):
        raise BadToken("malformed token")
    return value


def detached_signature(payload: bytes, key_id: str, secret: str) -> str:
    """A JWS (HS256) of a payload that travels apart: `header..signature`, as cluster-info carries it."""
    header = _encode(msgspec.json.encode({"alg": "HS256", "kid": key_id}))
    signature = hmac.new(secret.encode(), header + b"." + _encode(payload), hashlib.sha256).digest()
    return (header + b".." + _encode(signature)).decode()


def unverified_issuer(token: str) -> str:
    """Who a token says it is from; "" when it is no JWT. Only tells whether verifying is worth trying."""
    parts = token.split(".")
    if len(parts) != 3:
        return ""
    try:
        return str(_object(parts[1].encode()).get("iss", ""))
    except BadToken:
        return ""
