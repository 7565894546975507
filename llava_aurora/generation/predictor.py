"""A loaded model that answers questions about images: in batches, piece by piece, from given beginnings."""

import importlib.util
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, Self, cast, get_args

import torch
from PIL import Image

from llava_aurora.data.images.crop import crop
from llava_aurora.data.images.frame import FrameTransform
from llava_aurora.errors import AuroraError
from llava_aurora.generation.decoding import Written, decode_by_token
from llava_aurora.generation.drafts import Phrases, wording_of
from llava_aurora.generation.inputs import Inputs, Starts, Turn, decoded_text, prepare_inputs, start_ids
from llava_aurora.generation.packed import write_packed
from llava_aurora.generation.result import Reasoning, Result, Timings, asked, joined
from llava_aurora.generation.span_decoding import Decoded, Mode, SpanDecoder
from llava_aurora.generation.streaming import stream_pieces
from llava_aurora.model.aurora_llama import AuroraLlamaForCausalLM
from llava_aurora.model.checkpoint import load_pretrained_model
from llava_aurora.model.constraint import PerceptionLogitsProcessor
from llava_aurora.model.folders import fingerprint, model_folder
from llava_aurora.tasks.look_again import AGAIN
from llava_aurora.tasks.prompts import Prompts
from llava_aurora.tokens.perception import PerceptionTokens

Decoding = Literal["greedy", "verified", "parallel", "packed"]


class Predictor:
    """Answers questions about images; `from_pretrained` loads one.

    Args:
        tokenizer, model, image_processor: from `load_pretrained_model`.
        name: what it was loaded from.
        loading: how, as far as answers depend on it.
    """

    def __init__(
        self,
        *,
        tokenizer: Any,
        model: AuroraLlamaForCausalLM,
        image_processor: Any,
        name: str = "",
        loading: dict[str, Any] | None = None,
    ) -> None:
        self.tokenizer, self.model, self.image_processor = tokenizer, model, image_processor
        self.name, self.loading = name, loading or {}
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
    ) -> Self:
        """Loads a folder that a training run wrote: a whole model, LoRA, or (with `base`) a projector alone.

        Args:
            path: the folder, or a name on the Hugging Face hub, such as "liuhaotian/llava-v1.5-7b".
            base: the model that it was trained on; a LoRA folder names it itself.
            device: "cpu", "cuda", "cuda:1"; the GPU if there is one by default.
            device_map: of accelerate ("auto" spreads the model over all GPUs), in place of `device`.
            load_8bit, load_4bit: quantize with bitsandbytes.
            use_flash_attn: FlashAttention 2 instead of torch's attention.
            torch_dtype: float16 on GPUs and float32 on the CPU by default.
        Raises AuroraError if the folder holds no such model, or a package that is needed is not installed.
        """
        for needed, package, extra in (
            (load_8bit or load_4bit, "bitsandbytes", "quantization"),
            (use_flash_attn, "flash_attn", "flash"),
        ):
            if needed and importlib.util.find_spec(package) is None:
                raise AuroraError(f"{path}: loading it this way needs {package}; pip install -e '.[{extra}]'")
        path = model_folder(path)
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
            raise AuroraError(f"{path}: is a {model.config.model_type} model; only Llama models are supported")
        return cls(
            tokenizer=tokenizer,
            model=model,
            image_processor=image_processor,
            name=str(Path(path).resolve()),
            loading={"base": base, "load_8bit": load_8bit, "load_4bit": load_4bit},
        )

    @property
    def perception(self) -> PerceptionTokens | None:
        """The model's perception tokens; None for a model without."""
        return self.model.perception

    @property
    def image_size(self) -> int:
        """Side of the square that the vision tower sees, in pixels."""
        return int(self.image_processor.crop_size["height"])

    @property
    def aspect_ratio(self) -> str:
        """How an image gets into that square, see `FrameTransform.of`."""
        return FrameTransform.aspect_ratio_of(self.model.config, self.image_processor)

    @property
    def identity(self) -> dict[str, Any]:
        """What distinguishes this model from others, as JSON takes it. Raises AuroraError if its folder is gone."""
        return {"model": self.name, "fingerprint": fingerprint(Path(self.name)), **self.loading}

    @torch.inference_mode()
    def write(
        self,
        images: Sequence[Image.Image],
        questions: Sequence[str],
        *,
        reasoning: Reasoning = "direct",
        reasoning_prompt: str | None = None,
        answer_start: Starts = "",
        conversation: str = "vicuna_v1",
        max_new_tokens: int | None = None,
        constrained: bool = True,
        decoding: Decoding = "greedy",
        refinements: int = 1,
        among: Sequence[int] = (),
        before: Sequence[Turn] = (),
        **options: Any,
    ) -> list[Result]:
        """Answers one question about each image, all in one batch; a batch writes what each question gets alone.

        Args:
            images: one for each question; any size and mode, as they are to be seen.
            questions: without the image token.
            reasoning: "chain" asks the model to think step by step, "direct" leaves the question as it is.
            reasoning_prompt: what asks for a chain in place of "Think step by step.", such as the words a model was
                trained with.
            answer_start: what the answers begin with: a text for all, or the token ids of each.
            conversation: name of LLaVA's conversation template.
            max_new_tokens: of each answer, without its beginning; never more than the context leaves, the default.
            constrained: keep spans of perception tokens well-formed; changes nothing for a model without such tokens.
            decoding: "greedy" takes a forward pass for each token, "verified" writes the same in few, "parallel" keeps
                each map as it is after `refinements` passes (span_decoding.py). "packed" is greedy too, and reads an
                image that several questions share once (packed.py).
            refinements: passes over each map in parallel decoding.
            among: with "packed", the token ids of which the first one of each answer is the likeliest; none: any.
            before: the turn that comes before each question, or nothing.
            options: for transformers' `generate` (do_sample, num_beams, …), with "greedy" only; `streamer` and
                `stopping_criteria` with any.
        Raises AuroraError for an empty question, one that is longer than the context, an unknown conversation,
        reasoning or decoding, numbers of images and questions that differ, or options that do not go together.
        """
        began = time.perf_counter()
        if max_new_tokens is not None and max_new_tokens < 1:
            raise AuroraError(f"max_new_tokens must be at least 1, not {max_new_tokens}")
        decoder = self._decoder(decoding, refinements)
        prompts = [asked(question, reasoning, reasoning_prompt) for question in questions]
        parts = self.tokenizer, self.model, self.image_processor
        asks: dict[str, Any] = {"images": images, "questions": prompts}
        asks |= {"conversation": conversation, "answer_start": answer_start}
        if among and decoding != "packed":
            raise AuroraError(f"among: not available with {decoding} decoding; use packed")
        if decoding == "packed":
            if unknown := [*options, *(["before"] if before else [])]:
                raise AuroraError(f"{', '.join(unknown)}: not available with packed decoding, which is greedy")
            written = write_packed(*parts, **asks, most=max_new_tokens, constrained=constrained, among=among)
            prepared = began
        else:
            inputs = prepare_inputs(*parts, **asks, before=before)
            limits = [room if max_new_tokens is None else min(room, max_new_tokens) for room in inputs.room]
            prepared = time.perf_counter()
            if decoder is None:
                rows = decode_by_token(
                    self.tokenizer, self.model, inputs, limit=max(limits), constrained=constrained, **options
                )
            else:
                rows = self._decode_in_few_passes(decoder, inputs, limits=limits, constrained=constrained, **options)
            read = int(inputs.attention_mask.sum()) if decoder is None else 0
            written = Written(rows, inputs.starts, limits, read=read)
        rows, limits = written.rows, written.limits
        eos = self.tokenizer.eos_token_id
        new = [row.ids[:limit] for row, limit in zip(rows, limits, strict=True)]
        lengths = [ids.index(eos) + 1 if eos in ids else len(ids) for ids in new]
        timings = Timings(
            preparing=prepared - began,
            generating=time.perf_counter() - prepared,
            tokens=sum(lengths),
            forward_passes=max(row.passes for row in rows),
            token_passes=written.read + sum(lengths) - len(lengths) if written.read else 0,
        )
        results = []
        for number, (image, question) in enumerate(zip(images, questions, strict=True)):
            start, finished, noted = written.starts[number], eos in new[number], rows[number].log_probabilities
            ids = (*start, *new[number][: lengths[number] - finished])
            result = Result(
                text=decoded_text(ids, self.tokenizer),
                ids=ids,
                finished=finished,
                question=question,
                reasoning=reasoning,
                reasoning_prompt=reasoning_prompt,
                image=image,
                token_log_probabilities=(*[0.0] * len(start), *noted)[: len(ids)] if noted is not None else None,
                timings=timings,
                perception=self.perception,
                transform=partial(self._transform, image.size),
            )
            results.append(result)
        return results

    def look_again(
        self,
        images: Sequence[Image.Image],
        questions: Sequence[str],
        *,
        again: str = AGAIN,
        reasoning_prompt: str | None = None,
        lenient: bool = False,
        **options: Any,
    ) -> list[Result]:
        """Asks for a chain, then once more about the last box of each answer, enlarged; answers hold both texts.

        Args:
            again: the second question.
            lenient: an answer without a box that has an area stays as it is, instead of an error.
            options: others of `write`.
        Raises AuroraError as `write`, or for an answer without such a box.
        """
        results = self.write(images, questions, reasoning="chain", reasoning_prompt=reasoning_prompt, **options)
        crops: dict[int, Image.Image] = {}
        for number, (image, first) in enumerate(zip(images, results, strict=True)):
            try:
                crops[number] = _last_box(image, first)
            except AuroraError:
                if not lenient:
                    raise
        if not crops:
            return results
        before = [
            Turn(images[number], asked(questions[number], "chain", reasoning_prompt), results[number].text)
            for number in crops
        ]
        seconds = self.write(list(crops.values()), [again] * len(crops), before=before, **options)
        for number, second in zip(crops, seconds, strict=True):
            results[number] = joined(results[number], second)
        return results

    def write_pieces(self, image: Image.Image, question: str, **options: Any) -> Iterator[str | Result]:
        """Answers one question and yields the text in pieces as it is written, then the result.

        Arguments and errors as for `write`; errors come with the first piece. The pieces together are the result's
        text. Writing stops when the iterator is closed.
        """

        def write(**streaming: Any) -> Result:
            return self.write([image], [question], **streaming, **options)[0]

        (start,) = start_ids(self.tokenizer, options.get("answer_start", ""), count=1)
        return stream_pieces(write, self.tokenizer, start=start)

    def _transform(self, size: tuple[int, int], frame: int) -> FrameTransform:
        width, height = size
        return FrameTransform.of_model(self.model.config, self.image_processor, width=width, height=height, frame=frame)

    def _decoder(self, decoding: str, refinements: int) -> SpanDecoder | None:
        """What writes in few passes; None for one pass a token."""
        if decoding not in get_args(Decoding):
            raise AuroraError(f"unknown decoding {decoding!r}; available: {', '.join(get_args(Decoding))}")
        if decoding in ("greedy", "packed"):
            return None
        if self._phrases is None and self.perception is not None:
            self._phrases = wording_of(Prompts(), tokenizer=self.tokenizer, perception=self.perception)
        phrases = self._phrases or Phrases()
        return SpanDecoder(self.model, phrases=phrases, mode=cast(Mode, decoding), refinements=refinements)

    def _decode_in_few_passes(
        self,
        decoder: SpanDecoder,
        inputs: Inputs,
        *,
        limits: list[int],
        constrained: bool,
        streamer: Any = None,
        stopping_criteria: Sequence[Any] = (),
        **options: Any,
    ) -> list[Decoded]:
        if options:
            raise AuroraError(f"{', '.join(options)}: not available with this decoding, which is greedy")
        assert self.perception is not None

        def on_written(_: int, new: list[int]) -> bool:
            ids = torch.tensor([new])
            if streamer is not None:
                streamer.put(ids)
            return any(bool(criterion(ids, None).all()) for criterion in stopping_criteria)

        rows = decoder.decode(
            inputs,
            processor=PerceptionLogitsProcessor(self.perception) if constrained else None,
            limits=limits,
            eos_token_id=self.tokenizer.eos_token_id,
            on_written=on_written,
        )
        if streamer is not None:
            streamer.end()
        return rows


def _last_box(image: Image.Image, answer: Result) -> Image.Image:
    if not answer.boxes:
        raise AuroraError(f"the answer {answer.text[:60]!r} has no box, so there is nothing to look at again")
    return crop(image, answer.boxes[-1])
