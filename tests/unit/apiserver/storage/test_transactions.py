"""The hand-made transaction says what message objects would say."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from apiserver.storage.interface import Beside
from apiserver.storage.transactions import conditional_write, transaction
from proto.etcd.v1 import etcd_pb2 as pb

KEYS = st.binary(min_size=1, max_size=300)
NUMBERS = st.integers(0, (1 << 63) - 1)


@given(KEYS, st.one_of(st.none(), st.binary(max_size=300), st.just(b"x" * 20_000)), NUMBERS, NUMBERS)
def test_a_conditional_write(key: bytes, value: bytes | None, expected: int, lease: int) -> None:
    if value is None:
        success = pb.RequestOp(request_delete_range=pb.DeleteRangeRequest(key=key))
    else:
        success = pb.RequestOp(request_put=pb.PutRequest(key=key, value=value, lease=lease))
    unchanged = pb.Compare(target=pb.Compare.MOD, result=pb.Compare.EQUAL, key=key, mod_revision=expected)
    read = pb.RequestOp(request_range=pb.RangeRequest(key=key))
    wanted = pb.TxnRequest(compare=[unchanged], success=[success], failure=[read])
    made = pb.TxnRequest.FromString(conditional_write(key, value, expected, lease))
    assert made == wanted and made.compare[0].WhichOneof("target_union") == "mod_revision"


VALUES = st.one_of(st.none(), st.binary(max_size=300))


def parts(key: bytes, value: bytes | None, expected: int) -> tuple[pb.Compare, pb.RequestOp, pb.RequestOp]:
    whole = pb.TxnRequest.FromString(conditional_write(key, value, expected))
    return whole.compare[0], whole.success[0], whole.failure[0]


@given(KEYS, VALUES, NUMBERS, st.lists(st.builds(Beside, KEYS, VALUES, NUMBERS), max_size=4))
def test_a_write_with_others_beside_it(key: bytes, value: bytes | None, expected: int, beside: list[Beside]) -> None:
    made = pb.TxnRequest.FromString(transaction(key, value, expected, beside))
    first, *others = parts(key, value, expected), *(parts(*each) for each in beside)
    conditional = [found[0] for each, found in zip(beside, others, strict=True) if each.value is not None]
    wanted = pb.TxnRequest(
        compare=[first[0], *conditional],
        success=[each[1] for each in (first, *others)],
        failure=[each[2] for each in (first, *others)],
    )
    assert made == wanted
