"""`llava-aurora export` and `grammar` from the command line."""

import json
import re

import pytest
from command import llava_aurora

from llava_aurora.errors import AuroraError


@pytest.fixture
def run():
    def call(*arguments: object) -> str:
        result = llava_aurora(*arguments)
        if result.exception is not None:
            raise result.exception
        return result.stdout

    return call


def test_an_exported_model_tells_its_grammar_as_its_source_does(run, finetuned_lora, tmp_path):
    out = tmp_path / "exported"
    assert run("export", "--model", finetuned_lora[0], "--out", out) == f"{out}: the exported model\n"
    config = json.loads((out / "config.json").read_text())
    assert config["architectures"] == ["LlavaForConditionalGeneration"]
    for notation in ("regex", "ebnf"):
        printed = run("grammar", "--model", out, "--format", notation)
        assert printed == run("grammar", "--model", finetuned_lora[0], "--format", notation)
    assert printed.startswith("root ::= answer\n")


def test_a_task_in_ones_own_wording(run, finetuned_lora, tmp_path):
    prompts = tmp_path / "prompts.json"
    prompts.write_text(json.dumps({"counting_direct": {"answers": ["It is {count}."]}}))
    options = ("--model", finetuned_lora[0], "--format", "regex", "--task", "counting_direct")
    assert re.fullmatch(run("grammar", *options).rstrip("\n"), "12")
    assert re.fullmatch(run("grammar", *options, "--prompts", prompts).rstrip("\n"), "It is 12.")


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("export", "--model", "m", "--out", "o"), "m: no checkpoint here"),
        (("grammar", "--model", "m"), "m/config.json: cannot read the configuration of the model"),
        (("grammar", "--model", "m", "--prompts", "p"), "--prompts needs --task"),
    ],
)
def test_errors_say_what_to_do(run, tmp_path, monkeypatch, arguments, reason):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(AuroraError, match=re.escape(reason)):
        run(*arguments)
