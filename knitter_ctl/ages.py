"""Times as people read them."""

_SECOND = 1_000_000_000


def age(since: int, now: int) -> str:
    """How long ago, in at most two units: "42s", "3m5s", "7h", "12d". Both in nanoseconds since 1970; "" when `since` is 0."""
    if not since:
        return ""
    return span(max(0, (now - since) // _SECOND))


def span(seconds: float) -> str:
    """A span of time in at most two units."""
    whole = int(seconds)
    if whole < 120:
        return f"{whole}s"
    minutes, rest = divmod(whole, 60)
    if minutes < 10:
        return f"{minutes}m{rest}s" if rest else f"{minutes}m"
    if minutes < 180:
        return f"{minutes}m"
    hours, minutes = divmod(minutes, 60)
    if hours < 8:
        return f"{hours}h{minutes}m" if minutes else f"{hours}h"
    if hours < 48:
        return f"{hours}h"
    days, hours = divmod(hours, 24)
    return f"{days}d{hours}h" if hours and days < 8 else f"{days}d"
