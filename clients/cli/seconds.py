"""How long commands wait, and how people say how long."""

import asyncio
import math
import re
from collections.abc import Coroutine
from datetime import timedelta
from typing import Any

from syncengine.errors import Invalid

# How long a one-time command waits for the hub before it gives up.
CONNECT_SECONDS = 15.0


def duration(text: str) -> timedelta:
    match = re.fullmatch(r"(\d+)([smhd])", text)
    if match is None:
        raise Invalid(f"a duration is 30m, 24h or 7d, not {text!r}")
    unit = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}[match[2]]
    try:
        return timedelta(**{unit: int(match[1])})
    except OverflowError:
        raise Invalid(f"{text} is longer than anything lasts") from None


def check_seconds(seconds: float) -> None:
    if not 0 < seconds < math.inf:
        raise Invalid(f"--timeout is a number of seconds, not {seconds:g}")


async def within(waiting: Coroutine[Any, Any, None], link: Any, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await waiting
    except TimeoutError:
        why = f": {link.error}" if link.error else ""
        raise TimeoutError(
            f"not in sync after {seconds:g} s{why}; everything is kept, try again later"
        ) from None
