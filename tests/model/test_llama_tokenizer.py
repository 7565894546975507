"""The tokenizer on every supported transformers: ids, text and saved files are those of 4.57.6's slow LlamaTokenizer.

golden_tokenizer/ holds a SentencePiece model of 1,000 pieces, 500 strings, and what 4.57.6 made of them. There,
`python tests/model/test_llama_tokenizer.py` writes golden.json again.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from llava.mm_utils import tokenizer_image_token
from transformers import AutoTokenizer

from llava_aurora.compatibility import LlamaTokenizer
from llava_aurora.model.folders import load_tokenizer

GOLDEN = Path(__file__).with_name("golden_tokenizer")
SAVED = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
# Settings of a tokenizer_config.json; None is a folder that has tokenizer.model alone.
SETTINGS: dict[str, dict[str, Any] | None] = {
    "alone": None,  # without the words that training adds
    "legacy": {"legacy": True, "model_max_length": 2048, "padding_side": "right"},
    "current": {"legacy": False, "model_max_length": 512, "pad_token": "<unk>"},
    "bare": {"legacy": False, "add_bos_token": False, "add_eos_token": True, "add_prefix_space": False},
}
WORDS = [f"<DEPTH_{number}>" for number in range(12)] + ["<DEPTH_START>", "<DEPTH_END>", "<PIXEL_7>"]


def base_folder(folder: Path, settings: dict[str, Any] | None) -> Path:
    folder.mkdir(parents=True)
    shutil.copy(GOLDEN / "tokenizer.model", folder)
    (folder / "config.json").write_text('{"model_type": "llama"}')
    if settings is not None:
        config = {"tokenizer_class": "LlamaTokenizer", **settings}
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


def with_added_tokens(tokenizer: Any) -> Any:
    """As a training run of LLaVA leaves it."""
    tokenizer.pad_token = tokenizer.unk_token
    tokenizer.add_tokens(["<im_patch>"], special_tokens=True)
    tokenizer.add_tokens(WORDS)
    return tokenizer


def made_of(strings: list[str], tokenizer: Any, folder: Path) -> dict[str, Any]:
    """All that is compared; `folder` gets the tokenizer."""
    ids = [tokenizer_image_token(string, tokenizer) for string in strings]
    words = [[number for number in each if number >= 0] for each in ids]
    tokenizer.save_pretrained(folder)
    files = {name: json.loads((folder / name).read_text()) for name in SAVED if (folder / name).is_file()}
    return {
        "length": len(tokenizer),
        "ids": ids,
        "text": [tokenizer.decode(each) for each in words],
        "answer": tokenizer.batch_decode(words, skip_special_tokens=True, spaces_between_special_tokens=False),
        "cut": [tokenizer.decode(each[len(each) // 2 :], skip_special_tokens=True) for each in words],
        "files": files,
    }


def golden(folder: Path, strings: list[str]) -> dict[str, Any]:
    made = {}
    for name, settings in SETTINGS.items():
        tokenizer = AutoTokenizer.from_pretrained(base_folder(folder / name, settings), use_fast=False)
        if settings is not None:
            with_added_tokens(tokenizer)
        made[name] = made_of(strings, tokenizer, folder / name / "saved")
    return made


@pytest.fixture(scope="module")
def expected() -> dict[str, Any]:
    return json.loads((GOLDEN / "golden.json").read_text())


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory, expected: dict[str, Any]) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("tokenizers")
    return folder, golden(folder, expected["strings"])


@pytest.mark.parametrize("name", SETTINGS)
def test_ids_text_and_saved_files_are_the_golden_ones(found, expected, name):
    ours, theirs = found[1][name], expected[name]
    for part in ("ids", "text", "answer", "cut"):
        wrong = [case for case in zip(expected["strings"], ours[part], theirs[part], strict=True) if case[1] != case[2]]
        assert wrong == [], part
    assert ours["length"] == theirs["length"]
    assert ours["files"] == theirs["files"]


@pytest.mark.parametrize("name", SETTINGS)
def test_a_saved_folder_is_read_again_as_it_was(found, expected, name, tmp_path):
    again = made_of(expected["strings"], load_tokenizer(found[0] / name / "saved"), tmp_path / "again")
    assert again == expected[name] | {"files": again["files"]}


@pytest.mark.parametrize("model_type", ["llama", "llava", "llava_llama"])
def test_every_way_to_load_gives_this_tokenizer(found, model_type):
    for name in SETTINGS:
        for folder in (found[0] / name, found[0] / name / "saved"):
            (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
            assert type(AutoTokenizer.from_pretrained(folder, use_fast=False)) is LlamaTokenizer
            assert type(load_tokenizer(folder)) is LlamaTokenizer


def test_llava_alone_gives_it_too(found):
    """A program that has imported nothing of this package, such as one of LLaVA's own tools."""
    code = "import llava.model.builder as b, sys; t = b.AutoTokenizer.from_pretrained(sys.argv[1], use_fast=False)"
    code += "; print(t('a <DEPTH_1> b').input_ids)"
    run = subprocess.run([sys.executable, "-c", code, found[0] / "legacy" / "saved"], capture_output=True, text=True)
    ids = load_tokenizer(found[0] / "legacy" / "saved")("a <DEPTH_1> b").input_ids
    assert run.stdout.splitlines()[-1:] == [str(ids)], run.stderr


if __name__ == "__main__":
    import tempfile

    strings = json.loads((GOLDEN / "golden.json").read_text())["strings"]
    with tempfile.TemporaryDirectory() as folder:
        made = {"strings": strings, **golden(Path(folder), strings)}
    (GOLDEN / "golden.json").write_text(json.dumps(made, ensure_ascii=False, separators=(",", ":")) + "\n")
