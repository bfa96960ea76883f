"""Names and identities made by the server."""

from __future__ import annotations

import uuid

from apiserver.registry.naming import LONGEST_PREFIX, generated_name, new_uid


def test_uids_are_random_ones_of_version_4() -> None:
    found = {new_uid() for _ in range(200)}
    assert len(found) == 200
    for text in found:
        parsed = uuid.UUID(text)
        assert str(parsed) == text and parsed.version == 4 and parsed.variant == uuid.RFC_4122


def test_generated_names_keep_to_a_label() -> None:
    assert generated_name("web-").startswith("web-") and len(generated_name("web-")) == 9
    assert len(generated_name("x" * 100)) == LONGEST_PREFIX + 5
