"""A model for lmms-eval: asked by its tasks, it returns the final answer alone and keeps the chain in a log.

lmms-eval --model llava_aurora --model_args pretrained=FOLDER,reasoning=chain,chains=chains.jsonl --tasks …
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from lmms_eval.api.model import lmms
from PIL import Image

from llava_aurora.batches import batches
from llava_aurora.data.images.image_files import open_image
from llava_aurora.data.sources.depth.depth_estimation import default_device
from llava_aurora.errors import AuroraError
from llava_aurora.evaluation.answers import AnswerSettings
from llava_aurora.evaluation.plugins.chain_log import ChainLog
from llava_aurora.generation.aurora import Aurora
from llava_aurora.generation.result import Reasoning, asked


class LlavaAuroraModel(lmms):
    """A checkpoint of ours, or any LLaVA on Llama.

    A task's own generation settings are not followed: an answer is greedy, as in AURORA, and 16 tokens, which tasks of
    multiple choice often allow, would cut off every chain.

    Args:
        pretrained: the folder.
        base: of a folder with the projector alone.
        reasoning: "chain" or "direct".
        constrained: keep spans of perception tokens well-formed.
        max_new_tokens: most tokens of an answer, its chain included.
        batch_size: questions at a time.
        device: of one process; a GPU where there is one if left out. Of several each takes its own, or the CPU.
        chains: JSONL file that every answer is added to, whole: model, task, doc_id, and `Result.to_json`. With several
            processes each but the first writes one of its own beside it.
    Raises AuroraError if the folder holds no such model, or an argument is none of those named.
    """

    is_simple = True

    def __init__(
        self,
        pretrained: str,
        base: str | None = None,
        reasoning: Reasoning = "chain",
        constrained: bool = True,
        max_new_tokens: int = AnswerSettings.max_new_tokens,
        batch_size: int | str = 1,
        device: str | None = None,
        chains: str = "chains.jsonl",
        **unknown: Any,
    ) -> None:
        super().__init__()
        if given := sorted(name for name, value in unknown.items() if value is not None and name != "max_batch_size"):
            raise AuroraError(f"--model_args: unknown argument {given[0]!r}")
        asked("", reasoning)
        if type(constrained) is not bool:
            raise AuroraError(f"--model_args: constrained is True or False, not {constrained!r}")
        several = int(os.environ.get("WORLD_SIZE", "1")) > 1
        self.device = torch.device(default_device() if several or device is None else device)
        if several:
            from accelerate import Accelerator

            self.accelerator = Accelerator(cpu=self.device.type == "cpu")  # lmms-eval gathers through it
            self._rank, self._world_size = self.accelerator.process_index, self.accelerator.num_processes
        self.batch_size = int(batch_size)
        self.options: Mapping[str, Any] = {
            "reasoning": reasoning,
            "constrained": constrained,
            "max_new_tokens": int(max_new_tokens),
            "batch_size": self.batch_size,
        }
        self.log = ChainLog(Path(chains), model=pretrained, process=self._rank)
        self.aurora = Aurora.from_pretrained(pretrained, base=base, device=str(self.device))

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """The final answer to each request, in their order."""
        answers: list[str] = []
        for batch in batches(requests, self.batch_size):
            images = [self._image(request) for request in batch]
            questions = [request.args[0].strip() for request in batch]
            for request, result in zip(batch, self.aurora.ask(images, questions, **self.options), strict=True):
                _, _, _, doc_id, task, _ = request.args
                self.log.append(result, task=task, doc_id=doc_id)
                answers.append(result.answer)
        return answers

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        raise NotImplementedError("tasks that compare likelihoods are not supported; use one of generate_until")

    def generate_until_multi_round(self, requests: Sequence[Any]) -> list[str]:
        raise NotImplementedError("LLaVA-1.5 is asked one question about one image")

    def _image(self, request: Any) -> Image.Image:
        _, _, doc_to_visual, doc_id, task, split = request.args
        visuals = doc_to_visual(self.task_dict[task][split][doc_id])
        if len(visuals) != 1 or not isinstance(visuals[0], Image.Image):
            raise AuroraError(f"{task}, question {doc_id}: holds {len(visuals)} images or videos; one image is needed")
        return open_image(visuals[0])
