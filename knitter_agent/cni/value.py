"""A value of the configuration as an error's message shows it."""

import json

_LONGEST = 60


def shown(value: object) -> str:
    """As JSON, cut."""
    text = json.dumps(value, default=str)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."
