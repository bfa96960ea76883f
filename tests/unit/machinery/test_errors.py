"""Status errors: texts, and the way over the wire and back."""

from __future__ import annotations

import pytest

from machinery.errors import (
    AlreadyExists,
    BadRequest,
    Cause,
    Conflict,
    Expired,
    Forbidden,
    Invalid,
    NotFound,
    StatusError,
    Timeout,
    TooManyRequests,
    Unauthorized,
)
from machinery.field_errors import FieldError, invalid


@pytest.mark.parametrize(
    ("error", "message"),
    [
        pytest.param(NotFound.of("pods", "x"), 'pods "x" not found', id="not found"),
        pytest.param(NotFound.of("deployments", "x", "apps"), 'deployments.apps "x" not found', id="with group"),
        pytest.param(AlreadyExists.of("pods", "x"), 'pods "x" already exists', id="exists"),
        pytest.param(
            Conflict.of("pods", "x"),
            'Operation cannot be fulfilled on pods "x": the object has been modified; please apply your changes to the '
            "latest version and try again",
            id="conflict",
        ),
        pytest.param(Forbidden.of("pods", "x", why="no"), 'pods "x" is forbidden: no', id="forbidden"),
        pytest.param(
            Invalid.of("Pod", "x", causes=[Cause("A", "bad", "spec")]), 'Pod "x" is invalid: spec: bad', id="one"
        ),
        pytest.param(
            Invalid.of("Pod", "x", causes=[Cause("A", "bad", "spec"), Cause("B", "worse", "s")]),
            'Pod "x" is invalid: [spec: bad, s: worse]',
            id="two",
        ),
    ],
)
def test_messages(error: StatusError, message: str) -> None:
    assert error.message == message


@pytest.mark.parametrize(
    "error",
    [
        NotFound.of("pods", "x"),
        Conflict.of("pods", "x"),
        Expired.of_revision(1, 5),
        Timeout.resource_version_too_large(9, 5),
        TooManyRequests.of("slow down", 7),
        Unauthorized(),
        BadRequest("no"),
        Invalid.of("Pod", "x", causes=[Cause("A", "bad", "spec")]),
    ],
    ids=lambda error: type(error).__name__,
)
def test_there_and_back(error: StatusError) -> None:
    again = StatusError.from_status(error.to_status())
    assert type(again) is type(error)
    assert again.to_status() == error.to_status()


def test_an_unknown_reason_keeps_its_words() -> None:
    error = StatusError.from_status({"code": 418, "reason": "Teapot", "message": "short and stout"})
    assert (error.code, error.reason, error.message) == (418, "Teapot", "short and stout")


@pytest.mark.parametrize(
    ("finding", "text"),
    [
        pytest.param(FieldError.required("spec.x"), "spec.x: Required value", id="required"),
        pytest.param(FieldError.required("spec.x", "why"), "spec.x: Required value: why", id="required why"),
        pytest.param(FieldError.invalid("a", "B", "no"), 'a: Invalid value: "B": no', id="invalid"),
        pytest.param(FieldError.invalid("a", 5, "no"), "a: Invalid value: 5: no", id="number"),
        pytest.param(
            FieldError.not_supported("a", "B", ["y", "x"]),
            'a: Unsupported value: "B": supported values: "x", "y"',
            id="enum",
        ),
        pytest.param(FieldError.duplicate("a[1]", "B"), 'a[1]: Duplicate value: "B"', id="duplicate"),
        pytest.param(FieldError.forbidden("a", "no"), "a: Forbidden: no", id="forbidden"),
        pytest.param(FieldError.too_long("a", 63), "a: Too long: may not be more than 63 bytes", id="long"),
        pytest.param(FieldError.too_many("a", 5, 3), "a: Too many: 5: must have at most 3 items", id="many"),
    ],
)
def test_findings(finding: FieldError, text: str) -> None:
    assert str(finding) == text


def test_equal_findings_are_told_once_and_kept_as_causes() -> None:
    finding = FieldError.required("spec")
    error = invalid("Pod", "x", "", [finding, finding])
    assert error.message == 'Pod "x" is invalid: spec: Required value'
    assert len(error.causes) == 2
