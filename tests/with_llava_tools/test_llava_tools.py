"""LLaVA's own tools ask a model with perception tokens: nothing is typed but its folder, and spans are well-formed."""

import ast
import os
import re
import subprocess
import sys

import pytest
import torch
from llava.model.builder import load_pretrained_model as load_as_llava_does
from llava.model.language_model.llava_llama import LlavaLlamaForCausalLM
from PIL import Image
from transformers import LogitsProcessor, LogitsProcessorList

from llava_aurora import Predictor, load_pretrained_model
from llava_aurora.model.aurora_llama import AuroraLlamaForCausalLM
from llava_aurora.model.constraint import PerceptionLogitsProcessor

QUESTIONS = ("Write down the depth map of this image.", "How many red cubes are in the image? Think step by step.")
NEW_TOKENS = 60


@pytest.fixture(scope="module")
def model_folder(finetuned_lora):
    """Its name says neither v1 nor llava-v1.5, and it writes stray perception tokens if it is let."""
    return finetuned_lora[0]


@pytest.fixture(scope="module")
def answers(model_folder, workshop):
    """What our own predictor says, with the constraint and without."""
    predictor = Predictor.from_pretrained(model_folder, device="cpu")
    image = Image.open(workshop.images / "0.png")

    def ask(question: str, constrained: bool) -> str:
        (answer,) = predictor.write([image], [question], max_new_tokens=NEW_TOKENS, constrained=bool(constrained))
        return without_blanks(answer.text)

    return {(question, constrained): ask(question, constrained) for question in QUESTIONS for constrained in (0, 1)}


def without_blanks(text: str) -> str:
    """LLaVA's tools write a blank beside every perception token."""
    return re.sub(r"\s+", "", text)


def run_tool(module: str, *arguments: object, typed: str = "") -> str:
    done = subprocess.run(
        [sys.executable, "-m", module, *map(str, arguments)],
        input=typed,
        capture_output=True,
        text=True,
        env={**os.environ, "DS_ACCELERATOR": "cpu", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_the_constraint_changes_what_this_model_writes(answers):
    assert any(answers[question, True] != answers[question, False] for question in QUESTIONS)


def test_run_llava_answers_as_our_generate_does(model_folder, workshop, answers):
    options = ("--image-file", workshop.images / "0.png", "--temperature", 0, "--max_new_tokens", NEW_TOKENS)
    printed = run_tool("llava.eval.run_llava", "--model-path", model_folder, "--query", QUESTIONS[0], *options)
    assert without_blanks(printed.splitlines()[-1]) == answers[QUESTIONS[0], True]


def test_the_command_line_answers_as_our_generate_does_and_remembers_it(model_folder, workshop, answers):
    options = ("--device", "cpu", "--temperature", 0, "--max-new-tokens", NEW_TOKENS, "--debug")
    printed = run_tool(
        "llava.serve.cli",
        "--model-path",
        model_folder,
        "--image-file",
        workshop.images / "0.png",
        *options,
        typed=f"{QUESTIONS[1]}\nAnd what else?\n\n",
    )
    assert answers[QUESTIONS[1], True] in without_blanks(printed), "streamed as it is written"
    turns = [ast.literal_eval(line.strip()) for line in printed.splitlines() if line.startswith(" {'prompt': ")]
    first, second = (without_blanks(turn["prompt"]) for turn in turns)
    assert first.startswith("Achatbetweenacurioususer"), "the conversation it was trained with"
    assert second == f"{first}{answers[QUESTIONS[1], True]}</s>USER:Andwhatelse?ASSISTANT:", "the answer is remembered"


def test_the_tools_loader_gives_a_model_with_its_tokens(model_folder):
    tokenizer, model, image_processor, context_length = load_as_llava_does(str(model_folder), None, "any name")
    assert isinstance(model, AuroraLlamaForCausalLM)
    assert model.perception is not None
    assert model.dtype == torch.float32, "what a CPU computes in"
    assert context_length == 2048
    assert "<DEPTH_START>" in tokenizer.get_vocab()
    assert image_processor.crop_size["height"] == 56


def test_a_model_without_perception_tokens_is_upstreams(workshop):
    _, model, _, _ = load_as_llava_does(str(workshop.base), None, "llava-base", device="cpu")
    assert type(model) is LlavaLlamaForCausalLM


class Watching(LogitsProcessor):
    """Notes whether scores reach it ruled out."""

    def __init__(self) -> None:
        self.ruled_out: list[bool] = []

    def __call__(self, input_ids, scores):
        self.ruled_out.append(bool(scores.isinf().any()))
        return scores


@pytest.fixture(scope="module")
def model(model_folder):
    return load_pretrained_model(str(model_folder), device="cpu")[1]


@pytest.mark.parametrize("constrained", [True, False])
def test_generate_constrains_unless_told_otherwise(model, constrained):
    ids = torch.tensor([[1, 5, 6, 7]])
    written = model.generate(ids, do_sample=False, max_new_tokens=30, constrained=constrained)
    kept = PerceptionLogitsProcessor(model.perception)
    by_hand = LogitsProcessorList([kept] if constrained else [])
    expected = LlavaLlamaForCausalLM.generate(model, ids, do_sample=False, max_new_tokens=30, logits_processor=by_hand)
    assert written.tolist() == expected.tolist()


def test_a_constraint_that_is_given_is_not_put_in_twice(model, monkeypatch):
    calls = []
    call = PerceptionLogitsProcessor.__call__
    monkeypatch.setattr(
        PerceptionLogitsProcessor, "__call__", lambda self, *given: calls.append(1) or call(self, *given)
    )
    watching = Watching()
    processors = LogitsProcessorList([PerceptionLogitsProcessor(model.perception), watching])
    written = model.generate(
        torch.tensor([[1, 5, 6, 7]]), do_sample=False, max_new_tokens=5, logits_processor=processors
    )
    assert len(calls) == written.shape[1] == len(watching.ruled_out)
    assert all(watching.ruled_out)
