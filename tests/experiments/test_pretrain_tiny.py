"""The pretraining of the tiny base: what is computed and written is LLaVA's, and a run that was stopped goes on."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from llava import conversation
from llava.constants import IGNORE_INDEX, IMAGE_TOKEN_INDEX
from llava.train import train as upstream
from scipy.interpolate import RegularGridInterpolator

sys.path.insert(0, str(Path(__file__).parents[2] / "experiments"))

import pretrain_tiny
from tiny.batches import IMAGE_TOKENS, Turn
from tiny.image_tasks import SHADES, mirrored, shades
from tiny.pictures import GRID, load_pictures
from tiny.text_tasks import TEXT_TASKS, table

from llava_aurora.model.checkpoint import load_pretrained_model

SCENES = 6


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("pretraining")
    for name, seed in (("training", pretrain_tiny.TRAINING_SEED), ("held_out", pretrain_tiny.HELD_OUT_SEED)):
        load_pictures(out / name, count=SCENES, seed=seed)
    return out


@pytest.fixture
def run(folder, monkeypatch):
    monkeypatch.setattr(pretrain_tiny, "SAVED_EVERY", 1)
    return lambda steps: pretrain_tiny.Pretraining(folder, steps=steps, seed=0, scenes=SCENES)


@pytest.fixture
def batches(run, folder):
    made = run(10)
    pictures = load_pictures(folder / "held_out", count=SCENES, seed=pretrain_tiny.HELD_OUT_SEED)
    batches = made.batches(pictures, seed=1, steps=10, wrong=False)
    made.image_at = batches.encoder.image_at
    return made, batches


@torch.no_grad()
def test_the_forward_pass_is_llavas(batches):
    made, drawn = batches
    batch, at = drawn[9], made.image_at
    logits, _ = made.logits(batch, dtype=torch.float32)
    ids = torch.cat([batch.ids[0, :at], torch.tensor([IMAGE_TOKEN_INDEX]), batch.ids[0, at + IMAGE_TOKENS :]])[None]
    pixels = (batch.images[:1].float() / 255 - torch.tensor(pretrain_tiny.MEAN)) / torch.tensor(pretrain_tiny.DEVIATION)
    seen = made.model(input_ids=ids, images=pixels.permute(0, 3, 1, 2), attention_mask=torch.ones_like(ids)).logits[0]
    torch.testing.assert_close(logits[0], seen, atol=1e-4, rtol=0)
    torch.testing.assert_close(logits[-1], made.model(input_ids=batch.ids[-1:]).logits[0], atol=1e-4, rtol=0)


def test_conversations_are_tokenized_as_by_llava(batches, monkeypatch):
    """LLaVA learns nothing from turns behind the first with this tokenizer; of labels, those of one are compared."""
    made, drawn = batches
    monkeypatch.setattr(conversation, "default_conversation", conversation.conv_templates["v1"])
    monkeypatch.setattr(upstream.conversation_lib, "default_conversation", conversation.conv_templates["v1"])
    made.tokenizer.pad_token = made.tokenizer.unk_token
    for seed in range(4):
        _, turns, _ = drawn._about_image(np.random.default_rng(seed))
        for asked in (turns, turns[:1]):
            spoken = [
                {"from": speaker, "value": text}
                for number, turn in enumerate(asked)
                for speaker, text in (("human", ("" if number else "<image>\n") + turn.question), ("gpt", turn.answer))
            ]
            ids, labels, _ = drawn.encoder.row(asked, length=2000, image=True, system=True)
            found = upstream.preprocess_v1([spoken], made.tokenizer, has_image=True)
            at = made.image_at
            assert found["input_ids"][0].tolist() == [*ids[:at], IMAGE_TOKEN_INDEX, *ids[at + IMAGE_TOKENS :]]
        assert found["labels"][0].tolist() == [*labels[:at], IGNORE_INDEX, *labels[at + IMAGE_TOKENS :]]


def test_wrong_entries_stand_in_tables_alone_and_what_is_read_in_them_is_not_learned(batches):
    made, drawn = batches
    image, cells = drawn.pictures.images[0], drawn.pictures.cells[0]
    changed = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        turns = [Turn("shades row by row", *shades(rng, image)), Turn("color of a thing", "What?", "red")]
        row = drawn.encoder.row(turns, length=400, image=True, system=True)
        ids, labels, places = (list(part) for part in row)
        drawn.encoder.with_wrong_entries(rng, row)
        (_, start, stop), other = places
        assert row[0][: start + 1] == ids[: start + 1]
        assert row[0][other[1] :] == ids[other[1] :]
        assert row[1][other[1] :] == labels[other[1] :]
        wrong = [place for place, (one, two) in enumerate(zip(ids, row[0], strict=True)) if one != two]
        assert len(cells) >= len(wrong)
        assert all(row[1][place] == ids[place] for place in wrong), "the right entry is learned"
        if wrong:
            text = made.tokenizer.decode(ids[start + 1 : stop])
            assert ("The points are" in text) == (row[1][stop - 1] == IGNORE_INDEX)
        changed += bool(wrong)
    assert 8 <= changed < 20


def test_shades_are_those_of_the_cells_and_read_between_their_middles(batches):
    image = batches[1].pictures.images[0]
    for seed in range(8):
        question, answer = shades(np.random.default_rng(seed), image)
        rows = re.sub(r"\n\d+ ", " ", answer.split(".")[0].split(" is")[-1]).split()
        channel = {"bright": slice(None), "red": 0, "green": 1, "blue": 2}[
            next(shade for shade in SHADES if f" {shade}" in question)
        ]
        for number, value in enumerate(rows):
            y, x = divmod(number, GRID)
            mean = image[y * 16 : y * 16 + 16, x * 16 : x * 16 + 16, channel].mean()
            assert abs(int(value) - mean * 100 / 256) <= 2.4
        assert len(rows) == GRID**2


def test_a_run_that_was_stopped_goes_on_and_is_exported(run, folder):
    run(2).train()
    assert run(3).step == 2
    again = run(3)
    again.train()
    assert again.step == 3
    assert all(torch.isfinite(each).all() for each in again.parameters.values())
    assert set(again.evaluate(count=4)) >= {"table", "copy"}
    again.export(folder / "base")
    assert sum(path.stat().st_size for path in (folder / "base").rglob("*") if path.is_file()) < 8_000_000
    settings = (folder / "base" / "config.json").read_text()
    (folder / "base" / "config.json").write_text(settings.replace('"vision_tower"', f'"{folder}/base/vision_tower"'))
    _, model, _, _ = load_pretrained_model(str(folder / "base"))
    trained = again.parameters["model.layers.0.mlp.up_proj.weight"].bfloat16().float()
    torch.testing.assert_close(
        model.state_dict()["model.layers.0.mlp.up_proj.weight"].float(), trained, atol=1e-3, rtol=0
    )


@pytest.mark.parametrize("name", list(TEXT_TASKS))
def test_text_tasks_ask_and_answer_at_any_length(name):
    rng = np.random.default_rng(0)
    for level in (0.0, 0.5, 1.0):
        assert all(question and answer for question, answer in TEXT_TASKS[name](rng, level))


@pytest.mark.parametrize("seed", range(12))
def test_entries_of_a_table_stand_where_they_are_asked_for(seed):
    ((question, answer),) = table(np.random.default_rng(seed), 1.0)
    text = question.split("The table is ")[1].split(".")[0]
    labelled = "\n" in text
    entries = [word for row in text.split("\n") for word in row.split()[labelled:] if row]
    field = np.array(entries).reshape(GRID, GRID)
    if entries[0].isdigit():  # interpolated by SciPy, outside of the middles as at the nearest
        middles = (np.arange(GRID) + 0.5) * pretrain_tiny.FRAME / GRID - 0.5
        read = RegularGridInterpolator((middles, middles), field.astype(float))
    for said in answer.split("The points are ")[1].removesuffix(".").split(", "):
        _, place, word = said.split()
        column, row = map(int, place.strip("()").split(","))
        if not entries[0].isdigit():
            assert field[row * GRID // pretrain_tiny.FRAME, column * GRID // pretrain_tiny.FRAME] == word
        else:
            assert abs(read(np.clip([row, column], middles[0], middles[-1]))[0] - int(word)) <= 0.5 + 1e-9


def test_a_mirror_image_is_described_mirrored():
    cells = [str(number) for number in range(GRID**2)]
    turned, objects = mirrored(cells, [("red cube", 10.0, 50.0)])
    assert turned[:GRID] == ["6", "5", "4", "3", "2", "1", "0"]
    assert objects == [("red cube", pretrain_tiny.FRAME - 1 - 10.0, 50.0)]
