"""Parses the time at which an image was taken, and rejects impossible times."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone
from typing import Final

OLDEST: Final = datetime(1826, 1, 1, tzinfo=UTC)
"""No photograph is older."""
EARLIEST_NOW: Final = datetime(2026, 1, 1, tzinfo=UTC)
"""If the system clock is earlier than this, it was never set."""
MAX_CHARACTERS: Final = 80
"""Maximum characters of a time with a zone name; the patterns are slow on longer texts."""
_WESTERNMOST, _EASTERNMOST = timedelta(hours=-12), timedelta(hours=14)

# The formats of EXIF (blanks for unknown parts), ISO 8601 and XMP, and mixtures of them:
# `2024:05:06 07:08:09`, `2024-05-06T07:08:09.123+02:00`, `2024/05/06 7:08 pm`.
_DATE: Final = r"(\d{4})([:\-/.]) ?(\d{1,2})\2 ?(\d{1,2})"
_TIME: Final = r" ?(\d{1,2}): ?(\d{1,2})(?::(?: ?(\d{1,2})(?:[.,:](\d+))?| *))?"
# An offset, and the name of a zone, which is ignored.
_ZONE: Final = (
    r" *(Z|(?:UTC|GMT)?[+\-\u2212] ?\d{1,2}(?::?\d{2})?|UTC|GMT|[+\-]?[ :]+)?"
    r"(?: +[a-z]{2,5}| *\[?[a-z_]+(?:/[\w+\-]+)+\]?)?"
)
_WRITTEN_OUT: Final = re.compile(
    rf"{_DATE}(?:[T ,] *{_TIME} *([ap]\.?m\.?)?{_ZONE}|T?[ :]*)", re.IGNORECASE
)
_RUN_TOGETHER: Final = re.compile(
    rf"(\d{{4}})()(\d\d)(\d\d)(?:[T ]?(\d\d)(\d\d)(?:(\d\d)(?:[.,](\d+))?)?(){_ZONE})?",
    re.IGNORECASE,
)
_OFFSET: Final = re.compile(
    r"(?:UTC|GMT)?([+\-\u2212]) ?(\d{1,2})(?::?(\d{2}))?(?::\d{2})?", re.IGNORECASE
)


def parse_time(
    text: str, *, offset: str = "", fraction: str = "", now: datetime | None = None
) -> datetime | None:
    """The time in this text, in UTC; None if it cannot be parsed or is impossible.

    `offset` and `fraction` (digits of a second) come from other tags and are used if the text lacks
    them. Without a valid offset the local time is taken as UTC. A date without a time means
    midnight. Times before the first photograph or after tomorrow are rejected.
    """
    text = text.strip()
    if len(text) > MAX_CHARACTERS:
        return None
    found = _WRITTEN_OUT.fullmatch(text) or _RUN_TOGETHER.fullmatch(text)
    if found is None:
        return None
    year, _, month, day, hour, minute, second, own_fraction, half, zone = found.groups()
    local = _local(
        (int(year), int(month), int(day)),
        (_hour(int(hour or 0), half), int(minute or 0), int(second or 0)),
        own_fraction or (fraction if second and fraction.isdecimal() else ""),
    )
    if local is None:
        return None
    ahead = offset_of(zone or "")
    if ahead is None:
        ahead = offset_of(offset)
    instant = local.replace(tzinfo=timezone(ahead or timedelta())).astimezone(UTC)
    return instant if OLDEST <= instant < _end_of_tomorrow(now) else None


def offset_of(text: str) -> timedelta | None:
    """The offset from UTC that this text states; None if it states none or an impossible one."""
    text = text.strip()
    if text.upper() in ("Z", "UTC", "GMT"):
        return timedelta()
    found = _OFFSET.fullmatch(text)
    if found is None:
        return None
    sign, hours, minutes = found.groups()
    if int(minutes or 0) > 59:
        return None
    ahead = timedelta(hours=int(hours), minutes=int(minutes or 0))
    if sign != "+":
        ahead = -ahead
    return ahead if _WESTERNMOST <= ahead <= _EASTERNMOST else None


def _hour(hour: int, half: str | None) -> int:
    """The hour on a 24-hour clock; hours that a 12-hour clock does not have are unchanged."""
    if not half or not 1 <= hour <= 12:
        return hour
    return hour % 12 + (12 if half[0] in "pP" else 0)


def _local(day: tuple[int, int, int], time: tuple[int, int, int], fraction: str) -> datetime | None:
    if not OLDEST.year - 1 <= day[0] <= 9000:
        return None
    hour, minute, second = time
    midnight_after = time == (24, 0, 0)  # the end of a day in ISO 8601
    try:
        local = datetime(
            *day,
            0 if midnight_after else hour,
            minute,
            59 if second == 60 else second,  # a leap second belongs to the same day and year
            int(fraction[:6].ljust(6, "0")),
        )
    except ValueError:
        return None
    return local + timedelta(days=1) if midnight_after else local


def _end_of_tomorrow(now: datetime | None) -> datetime:
    today = max(now or datetime.now(UTC), EARLIEST_NOW)
    return today.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=2)
