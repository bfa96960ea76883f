"""Remembering what functions of texts answer, without letting anybody fill memory with long ones.

A cache that is bounded by its number of entries is not bounded in bytes while its keys come from requests: a label of a
megabyte is refused, but the cache of refusals would keep it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, wraps
from typing import Any, TypeVar, cast

Function = TypeVar("Function", bound=Callable[..., Any])
LONGEST = 1024  # characters or bytes: more than any text that is in order and asked for again and again


def is_short(*texts: str, longest: int = 2 * LONGEST) -> bool:
    """Whether texts that make up a key are short enough, together, to be kept."""
    return sum(map(len, texts)) <= longest


def keep_short(maxsize: int, longest: int = LONGEST) -> Callable[[Function], Function]:
    """`lru_cache` for functions whose first argument may be a text; answers about longer ones are not kept."""

    def decorate(function: Function) -> Function:
        kept = lru_cache(maxsize)(function)

        @wraps(function)
        def answer(text: Any, *args: Any, **kwargs: Any) -> Any:
            if isinstance(text, (str, bytes)) and len(text) > longest:
                return function(text, *args, **kwargs)
            return kept(text, *args, **kwargs)

        return cast(Function, answer)

    return decorate
