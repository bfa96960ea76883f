"""What a user may type."""

from __future__ import annotations

import pytest

from cli.app import _name_first, _parsed, main


@pytest.mark.parametrize(
    ("typed", "parsed"),
    [
        pytest.param(["up"], ["up"], id="no name"),
        pytest.param(["node", "start", "--name", "x", "w"], ["node", "--name", "x", "start", "w"], id="in the middle"),
        pytest.param(["node", "start", "w", "--name=x"], ["node", "--name", "x", "start", "w"], id="at the end"),
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


@pytest.mark.parametrize(
    ("typed", "name", "handed_on"),
    [
        pytest.param(["kubectl", "-n", "x", "get", "pods"], "nanokube", ["-n", "x", "get", "pods"], id="a flag first"),
        pytest.param(["kubectl", "--name", "two", "get", "--name"], "two", ["get", "--name"], id="our name in front"),
        pytest.param(["kubectl", "--name=two", "--help"], "two", ["--help"], id="its help"),
        pytest.param(["test", "--durations=5", "tests/unit"], "", ["--durations=5", "tests/unit"], id="pytest's flags"),
        pytest.param(["bench", "--readme", "api"], "", ["--readme", "api"], id="the bench's flags"),
        pytest.param(["test"], "", [], id="nothing"),
    ],
)
def test_arguments_that_are_handed_on(typed: list[str], name: str, handed_on: list[str]) -> None:
    options = _parsed(typed)
    assert options.arguments == handed_on
    assert getattr(options, "name", "") == name
