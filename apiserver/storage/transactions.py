"""etcd's conditional write as bytes: "if the key is at this revision, write or delete it, else read it".

Pure. It is the one message that every write sends, and building it from message objects costs three times as much. The
field numbers are those of `proto/etcd/v1/etcd.proto`, by which the tests decode what is made here.
"""

from __future__ import annotations

from collections.abc import Sequence

from apiserver.storage.interface import Beside

_LENGTHS = [bytes((size,)) for size in range(128)]


def conditional_write(key: bytes, value: bytes | None, expected: int, lease: int = 0) -> bytes:
    """TxnRequest. `expected` is the mod revision (0: no such key); a `value` of None deletes."""
    compare, success, failure = _parts(key, value, expected, lease)
    return compare + success + failure


def transaction(key: bytes, value: bytes | None, expected: int, beside: Sequence[Beside], lease: int = 0) -> bytes:
    """A conditional write with other keys beside it; all of them are read when any condition fails."""
    parts = [_parts(key, value, expected, lease)]
    for each in beside:
        compare, success, failure = _parts(each.key, each.value, each.expected, 0)
        parts.append((compare if each.value is not None else b"", success, failure))
    return b"".join(b"".join(kind) for kind in zip(*parts, strict=True))


def _parts(key: bytes, value: bytes | None, expected: int, lease: int) -> tuple[bytes, bytes, bytes]:
    """What is compared, what is done then, and what otherwise."""
    named = _field(b"\x0a", key)  # key = 1 of PutRequest, DeleteRangeRequest and RangeRequest
    if value is None:
        success = _field(b"\x1a", named)  # request_delete_range = 3
    else:
        put = named + _field(b"\x12", value)  # value = 2
        if lease:
            put += b"\x18" + varint(lease)  # lease = 3
        success = _field(b"\x12", put)  # request_put = 2
    # target = 2: MOD, key = 3, mod_revision = 6; result = 1 is left at EQUAL, its default
    compare = b"\x10\x02" + _field(b"\x1a", key) + b"\x30" + varint(expected)
    # compare = 1, success = 2, failure = 3 with request_range = 1
    return _field(b"\x0a", compare), _field(b"\x12", success), _field(b"\x1a", _field(b"\x0a", named))


def _field(tag: bytes, content: bytes) -> bytes:
    return tag + varint(len(content)) + content


def varint(value: int) -> bytes:
    """A number that is not negative, as protobuf writes it."""
    if value < 128:
        return _LENGTHS[value]
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)
