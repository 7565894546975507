"""Actions as text: `[8,10,10]` is steering, gas and brake in levels 0 … 20, 10 = none."""

import re

from llava_aurora.games.driver import Action

_TEXT = re.compile(r"\[\s*(\d{1,2})\s*,\s*(\d{1,2})\s*,\s*(\d{1,2})\s*\]")
_NONE, _MOST = 10, 20


def action_text(action: Action) -> str:
    """The nearest levels: steering in steps of 0.1, gas and brake (never under none) likewise."""
    return "[" + ",".join(str(round(_NONE + 10 * part)) for part in action) + "]"


def read_action(text: str) -> Action | None:
    """The first action in a text; None where there is none, or a level above 20. Gas and brake under 10 are none."""
    found = _TEXT.search(text)
    levels = [int(group) for group in found.groups()] if found else []
    if not levels or max(levels) > _MOST:
        return None
    steering, gas, brake = ((level - _NONE) / 10 for level in levels)
    return (steering, max(gas, 0.0), max(brake, 0.0))
