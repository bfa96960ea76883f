"""Names and identities that the server gives: generateName's suffix and UIDs. Called by the registry at creation."""

from __future__ import annotations

import os
import random

_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
_VARIANTS = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}
SUFFIX = 5
LONGEST_PREFIX = 63 - SUFFIX

_random = random.SystemRandom()


def generated_name(prefix: str) -> str:
    """`prefix` (cut so that the name stays a label) and five letters that spell no words."""
    return prefix[:LONGEST_PREFIX] + "".join(_random.choices(_ALPHABET, k=SUFFIX))


def new_uid() -> str:
    """A random UUID of version 4."""
    text = os.urandom(16).hex()
    return f"{text[:8]}-{text[8:12]}-4{text[13:16]}-{_VARIANTS[text[16]]}{text[17:20]}-{text[20:]}"
