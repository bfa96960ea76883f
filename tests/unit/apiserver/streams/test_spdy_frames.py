from __future__ import annotations

import contextlib
import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apiserver.streams.spdy_frames import (
    DICTIONARY,
    MAX_CONTROL,
    MAX_HEADERS,
    Data,
    Decoder,
    Encoder,
    Frame,
    GoAway,
    MoreHeaders,
    Ping,
    Reset,
    Settings,
    SpdyError,
    SynReply,
    SynStream,
    WindowUpdate,
)

ids = st.integers(1, 0x7FFFFFFF)
words = st.integers(0, 0xFFFFFFFF)
names = st.text(st.characters(codec="ascii"), min_size=1, max_size=20)
headers = st.dictionaries(names.map(str.lower), st.text(st.characters(codec="utf-8"), max_size=40), max_size=8)
frames = st.one_of(
    st.builds(SynStream, ids, headers, st.booleans(), st.booleans()),
    st.builds(SynReply, ids, headers, st.booleans()),
    st.builds(MoreHeaders, ids, headers, st.booleans()),
    st.builds(Data, ids, st.binary(max_size=300), st.booleans()),
    st.builds(Reset, ids, words),
    st.builds(Settings, st.dictionaries(st.integers(0, 0xFFFFFF), words, max_size=4)),
    st.builds(Ping, words),
    st.builds(GoAway, ids, words),
    st.builds(WindowUpdate, ids, ids),
)


@given(st.lists(frames.filter(lambda frame: not isinstance(frame, Data)), max_size=8), st.integers(1, 40))
def test_control_frames_survive_any_cut(sent: list[Frame], size: int) -> None:
    encoder, decoder = Encoder(), Decoder()
    raw = b"".join(encoder.encode(frame) for frame in sent)
    got = [frame for at in range(0, len(raw), size) for frame in decoder.feed(raw[at : at + size])]
    assert got == sent


@given(st.lists(st.builds(Data, ids, st.binary(max_size=300), st.booleans()), max_size=8), st.integers(1, 40))
def test_data_survives_any_cut(sent: list[Data], size: int) -> None:
    encoder, decoder = Encoder(), Decoder()
    raw = b"".join(encoder.encode(frame) for frame in sent)
    got = [frame for at in range(0, len(raw), size) for frame in decoder.feed(raw[at : at + size])]
    assert all(isinstance(frame, Data) for frame in got)
    pieces = [frame for frame in got if isinstance(frame, Data)]
    for frame in sent:
        data = b""
        while True:
            piece = pieces.pop(0)
            assert piece.stream == frame.stream
            data += piece.data
            if len(data) == len(frame.data):
                assert (data, piece.fin) == (frame.data, frame.fin)
                break
            assert not piece.fin  # only the last piece ends the stream
    assert not pieces


@given(st.binary(max_size=400), st.integers(1, 60))
def test_noise_ends_in_an_error_or_in_frames(noise: bytes, size: int) -> None:
    decoder = Decoder()
    try:
        for at in range(0, len(noise), size):
            for frame in decoder.feed(noise[at : at + size]):
                assert isinstance(frame, tuple)
    except SpdyError:
        pass


@given(st.lists(frames, min_size=1, max_size=4), st.data())
def test_damage_ends_in_an_error_or_in_frames(sent: list[Frame], draw: st.DataObject) -> None:
    encoder = Encoder()
    raw = bytearray(b"".join(encoder.encode(frame) for frame in sent))
    for _ in range(draw.draw(st.integers(1, 4))):
        raw[draw.draw(st.integers(0, len(raw) - 1))] = draw.draw(st.integers(0, 255))
    with contextlib.suppress(SpdyError):
        assert len(list(Decoder().feed(bytes(raw)))) <= len(raw)


def test_the_dictionary_is_the_protocols() -> None:
    assert (len(DICTIONARY), zlib.adler32(DICTIONARY)) == (1423, 0xE3C6A7C2)


@pytest.mark.parametrize(
    ("frame", "raw"),
    [
        pytest.param(Ping(1), "8003000600000004 00000001", id="ping"),
        pytest.param(GoAway(5, 1), "8003000700000008 00000005 00000001", id="goaway"),
        pytest.param(Reset(3, 2), "8003000300000008 00000003 00000002", id="reset"),
        pytest.param(Data(7, b"ab", True), "00000007 01000002 6162", id="data"),
        pytest.param(WindowUpdate(0, 9), "8003000900000008 00000000 00000009", id="window"),
        pytest.param(Settings({7: 65536}), "800300040000000c 00000001 00000007 00010000", id="settings"),
    ],
)
def test_bytes_on_the_wire(frame: Frame, raw: str) -> None:
    assert Encoder().encode(frame) == bytes.fromhex(raw)


def control(kind: int, payload: bytes, version: int = 3) -> bytes:
    return struct.pack("!HHI", 0x8000 | version, kind, len(payload)) + payload


def block(text: bytes) -> bytes:
    packer = zlib.compressobj(zdict=DICTIONARY)
    return b"\x00\x00\x00\x01" + bytes(6) + packer.compress(text) + packer.flush(zlib.Z_SYNC_FLUSH)


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(control(6, b"\x00\x00\x00\x01", version=2), id="version"),
        pytest.param(control(6, b"\x00"), id="short-ping"),
        pytest.param(struct.pack("!HHI", 0x8003, 1, MAX_CONTROL + 1), id="huge-control"),
        pytest.param(struct.pack("!II", 0, 5), id="data-for-nobody"),
        pytest.param(control(4, b"\x00\x00\x00\x05"), id="settings-of-another-length"),
        pytest.param(control(1, b"\x00\x00\x00\x01" + bytes(6) + b"no zlib"), id="no-zlib"),
        pytest.param(control(1, block(bytes(MAX_HEADERS * 2))), id="bomb"),
        pytest.param(control(1, block(b"")), id="no-count"),
        pytest.param(control(1, block(b"\xff\xff\xff\xff")), id="too-many"),
        pytest.param(control(1, block(b"\x00\x00\x00\x01\x00\x00\x00\x09a")), id="cut-off"),
    ],
)
def test_what_breaks_the_protocol(raw: bytes) -> None:
    with pytest.raises(SpdyError):
        list(Decoder().feed(raw))


def test_unknown_frames_are_passed_over() -> None:
    assert list(Decoder().feed(control(77, b"xyz") + Encoder().encode(Ping(3)))) == [Ping(3)]
