"""Cron schedules: does a text follow the grammar of spec.schedule?

Owns the five fields, names, ranges, steps and the @descriptors. Never computes when a schedule fires (the cron job
controller does). Called by the cron job validation.
"""

import re

_MONTH_NAMES = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_MONTHS = {name: index + 1 for index, name in enumerate(_MONTH_NAMES)}
_DAYS = {name: index for index, name in enumerate(("sun", "mon", "tue", "wed", "thu", "fri", "sat"))}
_FIELDS: tuple[tuple[int, int, dict[str, int]], ...] = (
    (0, 59, {}),
    (0, 23, {}),
    (1, 31, {}),
    (1, 12, _MONTHS),
    (0, 6, _DAYS),
)
_DESCRIPTORS = frozenset({"@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly"})
_DURATION = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)((\d+(\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h))*")


def schedule_error(text: str) -> str:
    """What is wrong with the schedule, in upstream's words; empty = nothing."""
    if text.startswith("@"):
        if text in _DESCRIPTORS:
            return ""
        if text.startswith("@every "):
            duration = text.removeprefix("@every ")
            if _DURATION.fullmatch(duration):
                return ""
            return f'failed to parse duration {text}: time: invalid duration "{duration}"'
        return f"unrecognized descriptor: {text}"
    fields = text.split()
    if len(fields) != len(_FIELDS):
        return f"expected exactly 5 fields, found {len(fields)}: [{' '.join(fields)}]"
    for field, (low, high, words) in zip(fields, _FIELDS, strict=True):
        for part in field.split(","):
            if problem := _part_error(part, low, high, words):
                return problem
    return ""


def _number(text: str, words: dict[str, int]) -> tuple[int, str]:
    if (named := words.get(text.lower())) is not None:
        return named, ""
    if re.fullmatch(r"[+-]?\d+", text):
        value = int(text)
        return value, (f"negative number ({value}) not allowed: {text}" if value < 0 else "")
    return 0, f'failed to parse int from {text}: strconv.Atoi: parsing "{text}": invalid syntax'


def _part_error(part: str, low: int, high: int, words: dict[str, int]) -> str:
    span, slash, step = part.partition("/")
    start_text, dash, end_text = span.partition("-")
    if start_text in ("*", "?"):
        start, end = low, high
    else:
        start, problem = _number(start_text, words)
        if problem:
            return problem
        end = start
        if dash:
            if "-" in end_text:
                return f"too many hyphens: {part}"
            end, problem = _number(end_text, words)
            if problem:
                return problem
        elif slash:
            end = high
    if slash:
        if "/" in step:
            return f"too many slashes: {part}"
        size, problem = _number(step, {})
        if problem:
            return problem
        if size == 0:
            return f"step of range should be a positive number: {part}"
    if start < low:
        return f"beginning of range ({start}) below minimum ({low}): {part}"
    if end > high:
        return f"end of range ({end}) above maximum ({high}): {part}"
    if start > end:
        return f"beginning of range ({start}) beyond end of range ({end}): {part}"
    return ""
