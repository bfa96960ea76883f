"""What a user may type."""

from __future__ import annotations

import pytest

from cli.app import _name_first, main


@pytest.mark.parametrize(
    ("typed", "parsed"),
    [
        pytest.param(["up"], ["up"], id="no name"),
        pytest.param(["node", "start", "--name", "x", "w"], ["node", "--name", "x", "start", "w"], id="in the middle"),
        pytest.param(["node", "start", "w", "--name=x"], ["node", "--name", "x", "start", "w"], id="at the end"),
        pytest.param(["kubectl", "get", "--name", "x"], ["kubectl", "get", "--name", "x"], id="not ours"),
        pytest.param([], ["--help"], id="nothing"),
    ],
)
def test_the_name_may_stand_anywhere(typed: list[str], parsed: list[str]) -> None:
    assert _name_first(typed) == parsed


@pytest.mark.parametrize("command", ["up", "down", "test"])
def test_without_root_it_says_so(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 65534)
    assert main([command]) != 0
    assert "needs root" in capsys.readouterr().err
