"""Streams an answer: generation runs in a thread, and an iterator yields the text."""

from collections.abc import Callable, Iterator, Sequence
from queue import SimpleQueue
from threading import Event, Thread
from typing import Any, TypeVar

import torch
from transformers import StoppingCriteria, StoppingCriteriaList
from transformers.generation.streamers import BaseStreamer

from llava_aurora.generation.inputs import decoded_text

Written = TypeVar("Written")
_INCOMPLETE = "\N{REPLACEMENT CHARACTER}"  # what the first bytes of a character decode to


def stream_pieces(
    write: Callable[..., Written], tokenizer: Any, *, start: Sequence[int] = ()
) -> Iterator[str | Written]:
    """Yields what is being written, piece by piece, and in the end what `write` returned.

    Args:
        write: calls transformers' `generate` on one row, with the `streamer` and `stopping_criteria` it is given.
        tokenizer: turns ids into text.
    Raises whatever `write` raises. When the iterator is closed, writing stops after the step it is in.
    """
    pieces: SimpleQueue[list[int]] = SimpleQueue()
    stop = Event()
    done: list[Written | Exception] = []

    def run() -> None:
        try:
            done.append(write(streamer=_Queue(pieces), stopping_criteria=StoppingCriteriaList([_Stopped(stop)])))
        except Exception as error:  # for the caller's thread
            done.append(error)
        pieces.put([])

    thread = Thread(target=run, daemon=True)
    thread.start()
    ids, shown, text = list(start), "", ""
    try:
        while new := pieces.get():
            ids += [token for token in new if token != tokenizer.eos_token_id]
            text = decoded_text(ids, tokenizer)
            if text != shown and text.startswith(shown) and not text.endswith(_INCOMPLETE):
                yield text[len(shown) :]
                shown = text
        (outcome,) = done
        if isinstance(outcome, Exception):
            raise outcome
        if text != shown:
            yield text[len(shown) :]
        yield outcome
    finally:
        stop.set()
        thread.join()


class _Queue(BaseStreamer):
    """Puts ids into a queue as they are chosen; transformers first gives those of the prompt, which are none here."""

    def __init__(self, queue: Any) -> None:
        self.queue = queue

    def put(self, value: torch.Tensor) -> None:
        if new := value.flatten().tolist():
            self.queue.put(new)

    def end(self) -> None:
        """Nothing: the thread says when it has ended."""


class _Stopped(StoppingCriteria):
    def __init__(self, stop: Event) -> None:
        self.stop = stop

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **_: Any) -> torch.Tensor:
        return torch.full((len(input_ids),), self.stop.is_set(), dtype=torch.bool, device=input_ids.device)
