"""The model under test, as evaluation sees it: it writes answers, and it goes on from given words."""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from PIL import Image

from llava_aurora.errors import AuroraError
from llava_aurora.evaluation.continuation import continue_answers
from llava_aurora.generation.generate import Answer, generate
from llava_aurora.model.checkpoint import load_pretrained_model
from llava_aurora.tokens.perception import PerceptionTokens

_WEIGHTS = ("*.safetensors", "*.bin")
_SAMPLE = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What answers depend on besides model and question.

    Args:
        conversation: name of LLaVA's conversation template.
        max_new_tokens: most tokens of an answer.
        constrained: keep spans of perception tokens well-formed.
        load_8bit, load_4bit: quantize by bitsandbytes.
    """

    conversation: str = "vicuna_v1"
    max_new_tokens: int = 512
    constrained: bool = True
    load_8bit: bool = False
    load_4bit: bool = False


class Asker(Protocol):
    """A model that can be evaluated."""

    perception: PerceptionTokens | None
    image_size: int
    identity: dict[str, Any]

    def write(self, images: Sequence[Image.Image], questions: Sequence[str]) -> list[Answer]:
        """An answer to each question about each image."""

    def go_on(
        self, images: Sequence[Image.Image], questions: Sequence[str], starts: Sequence[Sequence[int]]
    ) -> list[Answer]:
        """The same, each from the ids that its answer begins with."""


class LoadedAsker:
    """A checkpoint, loaded.

    Args:
        model: its folder.
        base: of a folder with the projector alone.
        device: "cpu", "cuda:1"; a GPU where there is one if left out.
        settings: of asking.

    Attributes:
        identity: what tells this model and these settings from others.
    """

    def __init__(
        self, model: Path, *, base: str | None = None, device: str | None = None, settings: Settings | None = None
    ) -> None:
        self.settings = settings or Settings()
        self.identity = {
            "model": str(model.resolve()),
            "base": base,
            "fingerprint": fingerprint(model),
            **asdict(self.settings),
        }
        loaded: tuple[Any, Any, Any, int] = load_pretrained_model(
            str(model),
            model_base=base,
            device=device,
            load_8bit=self.settings.load_8bit,
            load_4bit=self.settings.load_4bit,
        )
        self.tokenizer, self.model, self.image_processor, _ = loaded
        self.perception: PerceptionTokens | None = getattr(self.model, "perception", None)
        self.image_size = int(self.image_processor.crop_size["height"])

    def write(self, images: Sequence[Image.Image], questions: Sequence[str]) -> list[Answer]:
        return generate(
            self.tokenizer, self.model, self.image_processor, images=images, questions=questions, **self._options()
        )

    def go_on(
        self, images: Sequence[Image.Image], questions: Sequence[str], starts: Sequence[Sequence[int]]
    ) -> list[Answer]:
        return continue_answers(
            self.tokenizer,
            self.model,
            self.image_processor,
            images=images,
            questions=questions,
            starts=starts,
            **self._options(),
        )

    def _options(self) -> dict[str, Any]:
        names = ("conversation", "max_new_tokens", "constrained")
        return {name: getattr(self.settings, name) for name in names}


def fingerprint(folder: Path) -> str:
    """What tells a checkpoint from another: a hash of config.json, and of name, size and both ends of each weight file.

    Raises:
        AuroraError: if the folder is no checkpoint.
    """
    config = folder / "config.json"
    if not config.is_file():
        raise AuroraError(
            f"{folder}: no checkpoint here (config.json is missing); give the folder a training run wrote"
        )
    digest = hashlib.sha256(config.read_bytes())
    for path in sorted(path for pattern in _WEIGHTS for path in folder.glob(pattern)):
        size = path.stat().st_size
        digest.update(f"{path.name} {size}".encode())
        with path.open("rb") as file:
            digest.update(file.read(_SAMPLE))
            file.seek(max(0, size - _SAMPLE))
            digest.update(file.read(_SAMPLE))
    return digest.hexdigest()[:16]
