"""Quantities: exact values and the form a server stores."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from machinery import quantity


@pytest.mark.parametrize(
    ("text", "canonical", "milli", "value"),
    [
        pytest.param("0.5", "500m", 500, 1, id="fraction"),
        pytest.param("100m", "100m", 100, 1, id="milli"),
        pytest.param("1000", "1k", 1_000_000, 1000, id="thousand"),
        pytest.param("1e3", "1e3", 1_000_000, 1000, id="exponent kept"),
        pytest.param("12e6", "12e6", 12_000_000_000, 12_000_000, id="exponent of millions"),
        pytest.param("1024Mi", "1Gi", 1073741824000, 1073741824, id="binary grows"),
        pytest.param("1.5Gi", "1536Mi", 1610612736000, 1610612736, id="binary fraction"),
        pytest.param("0.1Ki", "102400m", 102400, 103, id="fraction of a byte"),
        pytest.param("512", "512", 512000, 512, id="plain"),
        pytest.param("0", "0", 0, 0, id="zero"),
        pytest.param("-1", "-1", -1000, -1, id="negative"),
        pytest.param(".5", "500m", 500, 1, id="no leading digit"),
        pytest.param("1n", "1n", 1, 1, id="nano rounds up"),
    ],
)
def test_forms(text: str, canonical: str, milli: int, value: int) -> None:
    assert (quantity.canonical(text), quantity.milli(text), quantity.value(text)) == (canonical, milli, value)


@pytest.mark.parametrize("text", ["", "x", "1x", "1 Gi", "--1", "1.2.3", "Gi", "1e", "0x10", "1Kii"])
def test_nonsense_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="quantities must match"):
        quantity.parse(text)


@given(st.integers(-(10**12), 10**12), st.sampled_from(["", "m", "k", "M", "Ki", "Mi", "Gi", "u"]))
def test_the_canonical_form_keeps_the_value_and_is_a_fixed_point(number: int, suffix: str) -> None:
    text = f"{number}{suffix}"
    canonical = quantity.canonical(text)
    assert quantity.parse(canonical) == quantity.parse(text)
    assert quantity.canonical(canonical) == canonical


@given(st.integers(0, 10**15))
def test_bytes_are_written_exactly(count: int) -> None:
    assert quantity.value(quantity.format_bytes(count)) == count


@given(st.integers(0, 10**9))
def test_cpus_are_written_exactly(count: int) -> None:
    assert quantity.milli(quantity.format_milli(count)) == count


def test_null_is_zero() -> None:
    assert quantity.parse(None) == quantity.value(None) == 0


def test_floats_and_ints_are_taken_as_written() -> None:
    assert quantity.parse(0.1) == Fraction(1, 10)
    assert quantity.value(3) == 3
