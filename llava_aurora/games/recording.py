"""Rounds of the scripted driver as LLaVA's records: tiled frames and the action as text."""

from pathlib import Path
from typing import Any

from llava_aurora.errors import AuroraError
from llava_aurora.files import atomic_folder, write_json
from llava_aurora.games.playing import QUESTION, Round, ScriptedPlayer, open_game
from llava_aurora.progress import tracked


def record_rounds(out: Path, *, rounds: int, seed: int, every: int, most_steps: int | None = None) -> list[float]:
    """Writes `records.json` and `frames/` into a new folder; returns the rounds' returns.

    Args: every: one record each this many steps. Raises AuroraError if `out` is there already.
    """
    if out.exists():
        raise AuroraError(f"{out} is there already; remove it or give another --out")
    records: list[dict[str, Any]] = []
    returns = []
    with open_game() as game, atomic_folder(out) as folder:
        (folder / "frames").mkdir()
        for number in tracked(range(seed, seed + rounds), "recording"):
            driver, played = ScriptedPlayer(), Round(game, seed=number)
            while not played.ended and (most_steps is None or played.steps < most_steps):
                (text,) = driver([played])
                if played.steps % every == 0:
                    name = f"{number:06d}-{played.steps:04d}"
                    played.seen.save(folder / "frames" / f"{name}.png")
                    asked = {"from": "human", "value": f"<image>\n{QUESTION}"}
                    answer = {"from": "gpt", "value": text}
                    records.append({"id": name, "image": f"frames/{name}.png", "conversations": [asked, answer]})
                played.act(text)
            returns.append(played.score)
        write_json(folder / "records.json", records)
    return returns
