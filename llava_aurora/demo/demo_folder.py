"""The folder of a demo: where its stages leave what they make, and the preset that it was made with."""

from pathlib import Path

from llava_aurora.demo.presets import PRESETS
from llava_aurora.errors import AuroraError


class DemoFolder:
    """Args: name: of the preset; out: the output folder, whose folder `work` holds what the stages leave.

    Attributes:
        seconds: what each stage took, by its title.

    Raises:
        AuroraError: for a preset that does not exist.
    """

    def __init__(self, *, name: str, out: Path) -> None:
        if name not in PRESETS:
            raise AuroraError(f"unknown preset {name!r}; available: {', '.join(PRESETS)}")
        self.name, self.preset = name, PRESETS[name]
        self.out, self.work = out, out / "work"
        self.seconds: dict[str, float] = {}

    @property
    def images(self) -> Path:
        """The held-out scenes."""
        return self.work / "scenes" / "held_out"
