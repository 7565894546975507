"""A model for VLMEvalKit: its benchmarks are asked, it returns the final answer alone and keeps the chain in a log.

VLMEvalKit looks for no plug-ins, so a script of one's own registers the model and starts it:

    from llava_aurora.evaluation.plugins.vlmevalkit import register

    register("aurora", pretrained="checkpoints/aurora", chains="outputs/aurora/chains.jsonl")

    from vlmeval.run import main

    main()
"""

import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import vlmeval.config
import vlmeval.vlm
from vlmeval.smp import concat_images_vlmeval
from vlmeval.vlm.base import BaseModel

from llava_aurora.errors import AuroraError
from llava_aurora.evaluation.answers import AnswerSettings
from llava_aurora.evaluation.plugins.chain_log import ChainLog
from llava_aurora.generation.aurora import Aurora
from llava_aurora.generation.result import Reasoning, asked

SeveralImages = Literal["refuse", "join"]
_JOINED_HEIGHT = 512  # pixels: what VLMEvalKit joins BLINK's images at for models that see one


class LlavaAurora(BaseModel):
    """A checkpoint of ours, or any LLaVA on Llama, as VLMEvalKit asks it: one question at a time, greedily.

    Args:
        pretrained: the folder.
        chains: JSONL file that every answer is added to, whole: model, dataset, images, and `Result.to_json`.
        base: of a folder with the projector alone.
        reasoning: "chain" or "direct".
        constrained: keep spans of perception tokens well-formed.
        max_new_tokens: most tokens of an answer, its chain included.
        several_images: "join" puts the images of a question side by side, as VLMEvalKit does with BLINK's; "refuse"
            ends the run at the first such question.
        device: "cpu", "cuda"; a GPU where there is one if left out. VLMEvalKit shows each process its own GPUs alone.
    Raises AuroraError if the folder holds no such model, or an argument is none of those named.
    """

    INTERLEAVE = False
    allowed_types = ("text", "image")

    def __init__(
        self,
        pretrained: str | Path,
        *,
        chains: str | Path,
        base: str | None = None,
        reasoning: Reasoning = "chain",
        constrained: bool = True,
        max_new_tokens: int = AnswerSettings.max_new_tokens,
        several_images: SeveralImages = "refuse",
        device: str | None = None,
    ) -> None:
        super().__init__()
        asked("", reasoning)
        if several_images not in ("refuse", "join"):
            raise AuroraError(f"unknown several_images {several_images!r}; available: refuse, join")
        self.several_images = several_images
        self.options: Mapping[str, Any] = {
            "reasoning": reasoning,
            "constrained": constrained,
            "max_new_tokens": max_new_tokens,
        }
        self.log = ChainLog(chains, model=str(pretrained), process=int(os.environ.get("RANK", "0")))
        self.aurora = Aurora.from_pretrained(pretrained, base=base, device=device)

    def generate_inner(self, message: Sequence[Mapping[str, str]], dataset: str | None = None) -> str:
        """The final answer to one question.

        Args:
            message: its parts in VLMEvalKit's form: {"type": "text" or "image", "value": the text or the image's path}.
            dataset: that it belongs to.
        Raises AuroraError if there is no image or, with several_images="refuse", more than one; or an image cannot be
        read.
        """
        question = "\n".join(part["value"] for part in message if part["type"] == "text")
        images = [part["value"] for part in message if part["type"] == "image"]
        if not images or (len(images) > 1 and self.several_images == "refuse"):
            remedy = "; several_images='join' puts them side by side" if images else ""
            raise AuroraError(f"{dataset}: {question[:60]!r} has {len(images)} images and one is needed{remedy}")
        image = images[0] if len(images) == 1 else concat_images_vlmeval(images, _JOINED_HEIGHT, return_image=True)
        result = self.aurora.ask(image, question, **self.options)
        self.log.append(result, dataset=dataset, images=images)
        return result.answer


def register(name: str, **options: Any) -> None:
    """Makes a model known to VLMEvalKit, for this process.

    Args:
        name: for its --model, and of the folder that it writes into. VLMEvalKit takes answers that it finds under a
            name for those of this model, so another checkpoint or another reasoning needs another name.
        options: of `LlavaAurora`, which a --config of VLMEvalKit can also name as its "class".
    Raises AuroraError if there is a model of that name.
    """
    if name in vlmeval.config.supported_VLM:
        raise AuroraError(f"VLMEvalKit already has a model {name!r}; choose another name")
    vlmeval.config.supported_VLM[name] = partial(LlavaAurora, **options)
    vlmeval.vlm.LlavaAurora = LlavaAurora
