"""A study in which nothing is learned: training leaves a mark, and the model says what a test wants."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from llava_aurora.demo.stages import token_families
from llava_aurora.generation.generate import Answer
from llava_aurora.study import running
from llava_aurora.study.pipeline import Study
from llava_aurora.study.sizes import SIZES
from llava_aurora.tokens.box import BoxKind
from llava_aurora.tokens.depth import DepthKind
from llava_aurora.tokens.perception import PerceptionTokens
from llava_aurora.vqvae.checkpoint import load_depth_vqvae

SMOKE = SIZES["smoke"]


def leave_model(command: Sequence[str], *, log: Path, description: str) -> None:
    """Leaves an output folder as training does."""
    folder = Path(command[command.index("--output_dir") + 1])
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"name": folder.parent.name}))


class FirstLetter:
    """Writes the same map for every image, and says A, or one; a replaced map makes it say B."""

    image_size = SMOKE.model.frame

    def __init__(self, model: Path, *, study: Path) -> None:
        depth = DepthKind(vqvae=load_depth_vqvae(study / "work" / "vqvae"))
        self.tokenizer = AutoTokenizer.from_pretrained(study / "work" / "base-0", use_fast=False)
        self.perception = PerceptionTokens.teach(
            self.tokenizer, {"depth": depth, "box": BoxKind(frame=self.image_size)}
        )
        self.identity = {"model": str(model)}
        self.map = token_families(SMOKE.vqvae, frame=self.image_size)[0].text([3] * 9)

    def write(self, images: Sequence, questions: Sequence[str]) -> list[Answer]:
        return self.go_on(images, questions, [[] for _ in questions])

    def go_on(self, images: Sequence, questions: Sequence[str], starts: Sequence[Sequence[int]]) -> list[Answer]:
        return [self._answer(question, list(start)) for question, start in zip(questions, starts, strict=True)]

    def _answer(self, question: str, start: list[int]) -> Answer:
        if start:
            before = self.tokenizer.decode(start, spaces_between_special_tokens=False)
            rest = f". The answer is ({'A' if self.map in before else 'B'})."
        elif "How many" in question:
            before, rest = "", "The answer is 1."
        elif "step by step" in question:
            before, rest = "", f"The depth map is {self.map}. The answer is (A)."
        else:
            before, rest = "", "(A)"
        ids = start + self.tokenizer(rest, add_special_tokens=False).input_ids
        return Answer(text=before + rest, ids=ids, finished=True)


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    return tmp_path_factory.mktemp("study") / "study_output"


@pytest.fixture
def unlearned(monkeypatch, out):
    """Makes a study of the smoke size in one folder; its models are all the same."""
    monkeypatch.setattr(running, "LoadedAsker", lambda model, settings: FirstLetter(model, study=out))
    return lambda **changes: Study(**{"size": "smoke", "out": out, "train": leave_model, **changes})


@pytest.fixture
def trained():
    return leave_model


@pytest.fixture
def first_letter():
    return FirstLetter
