"""A trained model as one object: ask it about pictures, see what it saw."""

import importlib.util
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, cast, get_args, overload

import torch
from PIL import Image

from llava_aurora.batches import batches
from llava_aurora.data.images.image_reader import open_image
from llava_aurora.errors import AuroraError
from llava_aurora.generation.drafts import Phrases, wording_of
from llava_aurora.generation.generate import generate
from llava_aurora.generation.inputs import start_ids
from llava_aurora.generation.result import Reasoning, Result, asked, read_result
from llava_aurora.generation.span_decoding import Mode, SpanDecoder
from llava_aurora.generation.streaming import stream_pieces
from llava_aurora.model.aurora_llama import AuroraLlamaForCausalLM
from llava_aurora.model.checkpoint import load_pretrained_model
from llava_aurora.tasks.prompts import Prompts

ImageLike = Image.Image | str | Path
Decoding = Literal["greedy", "verified", "parallel"]


class Aurora:
    """A model to ask; `from_pretrained` loads one.

    Args:
        tokenizer, model, image_processor: from `load_pretrained_model`.
        name: what it was loaded from.
    """

    def __init__(self, *, tokenizer: Any, model: AuroraLlamaForCausalLM, image_processor: Any, name: str = "") -> None:
        self.tokenizer, self.model, self.image_processor = tokenizer, model, image_processor
        self.name = name
        self._phrases: Phrases | None = None

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        *,
        base: str | None = None,
        device: str | None = None,
        device_map: Any = None,
        load_8bit: bool = False,
        load_4bit: bool = False,
        use_flash_attn: bool = False,
        torch_dtype: torch.dtype | None = None,
    ) -> "Aurora":
        """Loads a folder that a training run wrote: whole, LoRA, or (with `base`) a projector alone.

        Args:
            path: the folder.
            base: what it was trained on; LoRA's folder knows that itself.
            device: "cpu", "cuda", "cuda:1"; a GPU where there is one if left out.
            device_map: of accelerate ("auto" spreads the model over all GPUs), in place of `device`.
            load_8bit, load_4bit: quantize by bitsandbytes.
            use_flash_attn: FlashAttention 2 instead of torch's attention.
            torch_dtype: float16 on GPUs and float32 on the CPU if left out.

        Raises:
            AuroraError: if the folder holds no such model, or a package is missing for what is asked.
        """
        for asked_for, package, extra in (
            (load_8bit or load_4bit, "bitsandbytes", "quantization"),
            (use_flash_attn, "flash_attn", "flash"),
        ):
            if asked_for and importlib.util.find_spec(package) is None:
                raise AuroraError(f"{path}: loading it this way needs {package}; pip install -e '.[{extra}]'")
        tokenizer, model, image_processor, _ = load_pretrained_model(
            str(path),
            model_base=base,
            load_8bit=load_8bit,
            load_4bit=load_4bit,
            device_map=device_map,
            device=device,
            use_flash_attn=use_flash_attn,
            torch_dtype=torch_dtype,
        )
        if not isinstance(model, AuroraLlamaForCausalLM):
            raise AuroraError(
                f"{path}: is a {model.config.model_type} model; only those on Llama can be asked this way"
            )
        return cls(tokenizer=tokenizer, model=model, image_processor=image_processor, name=str(Path(path).resolve()))

    @overload
    def ask(self, image: ImageLike, question: str, **options: Any) -> Result: ...

    @overload
    def ask(self, image: Sequence[ImageLike], question: str | Sequence[str], **options: Any) -> list[Result]: ...

    @overload
    def ask(self, image: ImageLike, question: Sequence[str], **options: Any) -> list[Result]: ...

    def ask(
        self,
        image: ImageLike | Sequence[ImageLike],
        question: str | Sequence[str],
        *,
        reasoning: Reasoning = "chain",
        batch_size: int = 16,
        max_new_tokens: int | None = None,
        constrained: bool = True,
        decoding: Decoding = "greedy",
        refinements: int = 1,
        **options: Any,
    ) -> Result | list[Result]:
        """Asks one question, or many in batches; a batch gives what one at a time gives.

        Args:
            image: a picture or its path, or a list of them.
            question: without the image token; one, or a list. One of the two may be single beside a list.
            reasoning: "chain" asks the model to think step by step, "direct" leaves the question as it is.
            batch_size: questions at once.
            max_new_tokens: for each answer; what the context leaves if left out.
            constrained: keep spans of perception tokens well-formed.
            decoding: "greedy" takes a forward pass a token, "verified" writes the same in few, "parallel" takes each
                map as `refinements` passes leave it (span_decoding.py). With options that sample, "greedy" only.
            refinements: passes over a map, for "parallel".
            options: for `generate`: do_sample, temperature, num_beams, answer_start, conversation, …

        Returns:
            a result, or a list of them if `image` or `question` is one.

        Raises:
            AuroraError: for an image that cannot be read (it names the file) or is larger than Pillow holds for safe,
                an empty question, one longer than the context (it names both lengths), or lists of unequal length.
        """
        several = not isinstance(image, str | Path | Image.Image) or not isinstance(question, str)
        images, questions = _pairs(image, question)
        results: list[Result] = []
        for batch in batches(zip(images, questions, strict=True), batch_size):
            results += self._ask(
                [open_image(each) for each, _ in batch],
                [each for _, each in batch],
                reasoning=reasoning,
                max_new_tokens=max_new_tokens,
                constrained=constrained,
                decoder=self._decoder(decoding, refinements),
                **options,
            )
        return results if several else results[0]

    def stream(
        self,
        image: ImageLike,
        question: str,
        *,
        reasoning: Reasoning = "chain",
        max_new_tokens: int | None = None,
        constrained: bool = True,
        decoding: Decoding = "greedy",
        refinements: int = 1,
        **options: Any,
    ) -> Iterator[str | Result]:
        """Asks one question and yields the text in pieces as it is written, then the result.

        Arguments and errors as for `ask`; errors about the arguments come at the first piece. The pieces together
        are the result's text. Writing stops when the iterator is closed.
        """
        picture = open_image(image)

        def write(**streaming: Any) -> Result:
            (result,) = self._ask(
                [picture],
                [question],
                reasoning=reasoning,
                max_new_tokens=max_new_tokens,
                constrained=constrained,
                decoder=self._decoder(decoding, refinements),
                **streaming,
                **options,
            )
            return result

        start = start_ids(self.tokenizer, options.get("answer_start", ""))
        return stream_pieces(write, self.tokenizer, start=start)

    def _decoder(self, decoding: str, refinements: int) -> SpanDecoder | None:
        """What writes in few passes; None for greedy decoding. Raises AuroraError for another name."""
        if decoding == "greedy":
            return None
        if decoding not in get_args(Decoding):
            raise AuroraError(f"unknown decoding {decoding!r}; there are: {', '.join(get_args(Decoding))}")
        if self._phrases is None and self.model.perception is not None:
            self._phrases = wording_of(Prompts(), tokenizer=self.tokenizer, perception=self.model.perception)
        phrases = self._phrases or Phrases()
        return SpanDecoder(self.model, phrases=phrases, mode=cast(Mode, decoding), refinements=refinements)

    def _ask(
        self, images: list[Image.Image], questions: list[str], *, reasoning: Reasoning, **options: Any
    ) -> list[Result]:
        answers = generate(
            self.tokenizer,
            self.model,
            self.image_processor,
            images=images,
            questions=[asked(question, reasoning) for question in questions],
            **options,
        )
        return [
            read_result(
                answer,
                question=question,
                reasoning=reasoning,
                image=image,
                perception=self.model.perception,
                config=self.model.config,
                image_processor=self.image_processor,
            )
            for answer, question, image in zip(answers, questions, images, strict=True)
        ]


def _pairs(image: Any, question: Any) -> tuple[list[ImageLike], list[str]]:
    images = [image] if isinstance(image, str | Path | Image.Image) else list(image)
    questions = [question] if isinstance(question, str) else list(question)
    if len(images) != len(questions):
        if isinstance(question, str):
            questions *= len(images)
        elif isinstance(image, str | Path | Image.Image):
            images *= len(questions)
        else:
            raise AuroraError(f"{len(questions)} questions for {len(images)} images; give one each, or one for all")
    return cast(list[ImageLike], images), questions
