"""A model for lmms-eval: asked by its tasks, it returns the final answer alone and keeps the chain in a log.

lmms_eval --model llava_aurora --model_args pretrained=FOLDER,reasoning=chain,chains=chains.jsonl --tasks …
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lmms_eval.api.model import lmms
from PIL import Image

from llava_aurora.batches import batches
from llava_aurora.data.depth.depth_estimation import default_device
from llava_aurora.errors import AuroraError
from llava_aurora.generation.aurora import Aurora


class LlavaAuroraModel(lmms):
    """A checkpoint of ours, or any LLaVA.

    A task's own generation settings are not followed: an answer is greedy, as in AURORA, and 16 tokens, which tasks of
    multiple choice often allow, would cut off every chain.

    Args:
        pretrained: the folder.
        base: of a folder with the projector alone.
        reasoning: "chain" or "direct".
        max_new_tokens: most tokens of an answer, its chain included.
        batch_size: questions at a time.
        device: this process's GPU or else the CPU if left out.
        chains: JSONL file that all texts are appended to: task, doc_id, question, text, answer. With several processes
            each but the first writes one of its own beside it.

    Raises:
        AuroraError: if the folder holds no such model.
    """

    is_simple = True

    def __init__(
        self,
        pretrained: str,
        base: str | None = None,
        reasoning: str = "chain",
        max_new_tokens: int = 512,
        batch_size: int | str = 1,
        device: str | None = None,
        chains: str = "chains.jsonl",
        **unknown: Any,
    ) -> None:
        super().__init__()
        if given := sorted(name for name, value in unknown.items() if value is not None and name != "max_batch_size"):
            raise AuroraError(f"--model_args: unknown argument {given[0]!r}")
        if reasoning not in ("chain", "direct"):
            raise AuroraError(f"--model_args: reasoning is chain or direct, not {reasoning!r}")
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            from accelerate import Accelerator

            self.accelerator = Accelerator()  # lmms-eval gathers through it
            self._rank, self._world_size = self.accelerator.process_index, self.accelerator.num_processes
        self.reasoning, self.max_new_tokens, self.batch_size = reasoning, int(max_new_tokens), int(batch_size)
        log = Path(chains)
        self.chains = log if self._rank == 0 else log.with_suffix(f".{self._rank}{log.suffix}")
        self.aurora = Aurora.from_pretrained(pretrained, base=base, device=_device(device))

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """The final answer to each request, in their order."""
        answers: list[str] = []
        for batch in batches(requests, self.batch_size):
            images = [self._image(request) for request in batch]
            questions = [request.args[0].strip() for request in batch]
            found = self.aurora.ask(
                images,
                questions,
                reasoning=self.reasoning,
                batch_size=self.batch_size,
                max_new_tokens=self.max_new_tokens,
            )
            for request, result in zip(batch, found, strict=True):
                answers.append(result.answer)
                self._keep(request, result.question, result.text, result.answer)
        return answers

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        raise NotImplementedError("a chain has no likelihood to compare; use a task of generate_until")

    def generate_until_multi_round(self, requests: Sequence[Any]) -> list[str]:
        raise NotImplementedError("LLaVA-1.5 is asked one question about one image")

    def _image(self, request: Any) -> Image.Image:
        _, _, doc_to_visual, doc_id, task, split = request.args
        visuals = doc_to_visual(self.task_dict[task][split][doc_id])
        if len(visuals) != 1 or not isinstance(visuals[0], Image.Image):
            raise AuroraError(f"{task}, question {doc_id}: holds {len(visuals)} images or videos; one image is needed")
        return visuals[0].convert("RGB")

    def _keep(self, request: Any, question: str, text: str, answer: str) -> None:
        _, _, _, doc_id, task, _ = request.args
        line = {"task": task, "doc_id": doc_id, "question": question, "text": text, "answer": answer}
        self.chains.parent.mkdir(parents=True, exist_ok=True)
        with self.chains.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def _device(device: str | None) -> str:
    """lmms-eval hands on its own --device, "cuda:0" where none was given, to every process."""
    multiple = int(os.environ.get("WORLD_SIZE", "1")) > 1
    return device if device is not None and not multiple and not device.startswith("cuda") else default_device()
