"""Names and identities that the server gives: generateName's suffix and UIDs. Called by the registry at creation."""

from __future__ import annotations

import os
import random
import uuid

_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
SUFFIX = 5
LONGEST_PREFIX = 63 - SUFFIX

_random = random.SystemRandom()


def generated_name(prefix: str) -> str:
    """`prefix` (cut so that the name stays a label) and five letters that spell no words."""
    return prefix[:LONGEST_PREFIX] + "".join(_random.choices(_ALPHABET, k=SUFFIX))


def new_uid() -> str:
    """A random UUID."""
    return str(uuid.UUID(bytes=os.urandom(16), version=4))
