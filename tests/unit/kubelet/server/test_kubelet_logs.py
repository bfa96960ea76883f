"""CRI logs: parsing, cutting, tailing, following across a rotation."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubelet.server.logs import LineFormatter, LogOptions, read_log, tail_start

STAMP = "2026-01-01T00:00:0{}.000000001+00:00"


def line(text: str, second: int = 0, tag: str = "F", stream: str = "stdout") -> str:
    return f"{STAMP.format(second)} {stream} {tag} {text}\n"


async def collect(path: Path, options: LogOptions, alive: bool = False) -> str:
    return b"".join([chunk async for chunk in read_log(path, options, lambda: alive)]).decode()


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "0.log"
    path.write_text(
        line("one", 1) + line("tw", 2, "P") + line("o", 3, stream="stdout") + line("err", 4, stream="stderr")
    )
    return path


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        pytest.param(LogOptions(), "one\ntwo\nerr\n", id="all"),
        pytest.param(LogOptions(tail=1), "err\n", id="tail"),
        pytest.param(LogOptions(tail=0), "", id="tail-nothing"),
        pytest.param(LogOptions(tail=99), "one\ntwo\nerr\n", id="tail-more-than-there-is"),
        pytest.param(LogOptions(limit=6), "one\ntw", id="limit"),
        pytest.param(LogOptions(since="2026-01-01T00:00:04Z"), "err\n", id="since"),
        pytest.param(
            LogOptions(timestamps=True, tail=1), "2026-01-01T00:00:04.000000001Z err\n", id="timestamps-in-utc"
        ),
    ],
)
async def test_reads_what_is_wanted(log: Path, options: LogOptions, expected: str) -> None:
    assert await collect(log, options) == expected


async def test_a_missing_log_is_empty(tmp_path: Path) -> None:
    assert await collect(tmp_path / "none.log", LogOptions()) == ""


async def test_rotated_files_come_first(log: Path) -> None:
    log.with_name("0.log.20260101-000000").write_text(line("zero") + line("half"))
    assert await collect(log, LogOptions()) == "zero\nhalf\none\ntwo\nerr\n"
    assert await collect(log, LogOptions(tail=5)) == "half\none\ntwo\nerr\n"


async def test_follows_growth_and_rotation_until_the_container_ends(tmp_path: Path) -> None:
    path = tmp_path / "0.log"
    path.write_text(line("one"))
    state = {"alive": True}
    got: list[str] = []

    async def follow() -> None:
        async for chunk in read_log(path, LogOptions(follow=True), lambda: state["alive"]):
            got.append(chunk.decode())
            match len(got):
                case 1:
                    path.rename(path.with_name("0.log.20260101-000000"))
                    path.write_text(line("two"))
                case 2:
                    with path.open("a") as file:
                        file.write(line("three"))
                    state["alive"] = False

    async with asyncio.timeout(10):
        await follow()
    assert got == ["one\n", "two\n", "three\n"]


@given(st.lists(st.text(alphabet="abc", max_size=8), max_size=40), st.integers(0, 50))
def test_tail_is_what_the_last_lines_are(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], wanted: int
) -> None:
    path = tmp_path_factory.mktemp("log") / "0.log"
    path.write_text("".join(text + "\n" for text in texts))
    index, offset = tail_start([path], wanted)
    assert index == 0
    rest = path.read_bytes()[offset:].decode()
    assert rest == "".join(text + "\n" for text in texts[max(len(texts) - wanted, 0) :])


@given(st.binary(max_size=60))
def test_garbage_in_a_log_never_fails(raw: bytes) -> None:
    formatter = LineFormatter(LogOptions(timestamps=True, limit=20, since="2026-01-01T00:00:00Z"))
    assert len(formatter.format(raw)) <= 20
