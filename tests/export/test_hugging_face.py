"""transformers' own LLaVA writes what ours writes: the same ids for the same pictures and questions."""

import json
import shutil
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from llava.conversation import conv_templates
from llava.mm_utils import tokenizer_image_token
from PIL import Image
from transformers import (
    AutoModelForImageTextToText,
    AutoProcessor,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    LogitsProcessorList,
    PreTrainedTokenizerFast,
    pipeline,
)

from llava_aurora import Predictor, load_pretrained_model
from llava_aurora.compatibility import slow_tokenizer
from llava_aurora.data.images.image_reader import asked_pixels
from llava_aurora.data.view import trained_modalities
from llava_aurora.demo.tiny_base import TINY_BASE
from llava_aurora.errors import AuroraError
from llava_aurora.export.chat_template import chat_template
from llava_aurora.export.fast_tokenizer import after_bos, check_same_ids, fast_tokenizer
from llava_aurora.export.hugging_face import export_hugging_face, with_image_row
from llava_aurora.model.constraint import PerceptionLogitsProcessor

QUESTIONS = (
    "Write down the depth map of this image.",
    "How many red cubes are in the image? Think step by step.",
    "Is point A, at (<PIXEL_3>,<PIXEL_7>), nearer  than “B”?\n1. yes\n2. no",
)
SIZES = ((56, 56), (90, 40), (33, 80))  # square, wide, high
NEW_TOKENS = 24


class Pair(NamedTuple):
    """One model twice: as ours loads it, and as transformers loads what was exported."""

    source: Path
    out: Path
    tokenizer: object
    model: object
    image_processor: object
    processor: LlavaProcessor
    exported: LlavaForConditionalGeneration


def export(source: Path, out: Path, **options) -> Pair:
    export_hugging_face(source, out, **options)
    tokenizer, model, image_processor, _ = load_pretrained_model(str(source), device="cpu")
    exported = AutoModelForImageTextToText.from_pretrained(out)
    return Pair(source, out, tokenizer, model, image_processor, AutoProcessor.from_pretrained(out), exported)


@pytest.fixture(scope="module", params=["whole", "LoRA"])
def pair(request, finetuned, finetuned_lora, tmp_path_factory):
    source = {"whole": finetuned, "LoRA": finetuned_lora}[request.param][0]
    return export(source, tmp_path_factory.mktemp("exported") / "model")


@pytest.fixture
def changed_base(workshop, tmp_path):
    """The tiny base model, without perception tokens, with other settings in one of its files."""

    def change(file: str, **settings: object) -> Path:
        folder = tmp_path / "changed"
        shutil.copytree(workshop.base, folder)
        content = json.loads((folder / file).read_text()) | settings
        (folder / file).write_text(json.dumps(content))
        return folder

    return change


def pictures() -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (high, wide, 3), dtype=np.uint8)) for wide, high in SIZES]


def message(image: Image.Image, question: str) -> dict:
    return {"role": "user", "content": [{"type": "image", "image": image}, {"type": "text", "text": question}]}


def inputs(pair: Pair, image: Image.Image, question: str):
    return pair.processor.apply_chat_template(
        [message(image, question)], add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    )


def written(pair: Pair, image: Image.Image, question: str, *, constrained: bool) -> list[int]:
    given = inputs(pair, image, question)
    processors = [PerceptionLogitsProcessor(pair.model.perception)] if constrained else []
    out = pair.exported.generate(**given, max_new_tokens=NEW_TOKENS, logits_processor=LogitsProcessorList(processors))
    ids = out[0, given["input_ids"].shape[1] :].tolist()
    return ids[: ids.index(pair.tokenizer.eos_token_id)] if pair.tokenizer.eos_token_id in ids else ids


def ours(pair: Pair, image: Image.Image, question: str, *, constrained: bool):
    predictor = Predictor(tokenizer=pair.tokenizer, model=pair.model, image_processor=pair.image_processor)
    return predictor.write([image], [question], max_new_tokens=NEW_TOKENS, constrained=constrained)[0]


@pytest.mark.parametrize("constrained", [False, True], ids=["free", "constrained"])
def test_greedy_tokens_are_ours(pair, constrained):
    images = pictures()
    for image, question in [*zip(images, QUESTIONS, strict=True), *zip(images[::-1], QUESTIONS, strict=True)]:
        expected = ours(pair, image, question, constrained=constrained)
        found = written(pair, image, question, constrained=constrained)
        assert found == list(expected.ids), (image.size, question)
        text = pair.processor.decode(found, skip_special_tokens=True).strip()
        if "�" not in expected.text:  # bytes that are no UTF-8 are shown by each library in its own way
            assert text == expected.text


def test_a_batch_writes_what_each_of_its_rows_would(pair):
    images, questions = pictures()[:2], QUESTIONS[:2]
    texts = [
        pair.processor.apply_chat_template([message(*asked)], add_generation_prompt=True)
        for asked in zip(images, questions, strict=True)
    ]
    batch = pair.processor(images=images, text=texts, padding=True, return_tensors="pt")
    out = pair.exported.generate(**batch, max_new_tokens=12)[:, batch["input_ids"].shape[1] :].tolist()
    for row, image, question in zip(out, images, questions, strict=True):
        assert row == written(pair, image, question, constrained=False)[:12]


def test_it_is_what_transformers_itself_reads(pair):
    assert type(pair.exported) is LlavaForConditionalGeneration
    assert type(pair.processor) is LlavaProcessor
    assert type(pair.processor.tokenizer) is PreTrainedTokenizerFast
    answer = pipeline("image-text-to-text", model=str(pair.out))(
        text=[message(pictures()[0], QUESTIONS[1])], max_new_tokens=NEW_TOKENS, return_full_text=False
    )
    ids = written(pair, pictures()[0], QUESTIONS[1], constrained=False)
    assert answer[0]["generated_text"] == pair.processor.decode(ids, skip_special_tokens=True)


def test_no_perception_token_has_moved_and_the_image_comes_last(pair):
    known, exported = pair.tokenizer.get_vocab(), pair.processor.tokenizer.get_vocab()
    assert {token: exported[token] for token in known} == known
    assert exported.keys() - known.keys() == {"<image>"}
    assert exported["<image>"] == len(known) == pair.exported.config.image_token_id
    ids = list(pair.model.perception.token_ids())
    kept = pair.processor.decode(ids, skip_special_tokens=True)
    assert kept == "".join(pair.model.perception.vocabulary.tokens)


def test_maps_are_read_from_its_text_by_the_vqvae_that_travels_along(pair):
    kinds = trained_modalities(pair.out)
    codes = [3, 1, 4, 1, 5, 9, 2, 6, 5]
    text = f"The depth map is {kinds['depth'].family.text(codes)}."
    (found,) = kinds["depth"].read(text)
    (expected,) = pair.model.perception.kinds["depth"].read(text)
    assert np.array_equal(found, expected)


def test_nothing_of_this_machine_is_left_in_it(pair):
    for file in pair.out.glob("*.json"):
        assert str(pair.source.parent) not in file.read_text(), file.name


def test_weights_keep_their_type_unless_told_otherwise(finetuned, tmp_path):
    export_hugging_face(finetuned[0], tmp_path / "half", dtype=torch.bfloat16)
    model = AutoModelForImageTextToText.from_pretrained(tmp_path / "half", dtype="auto")
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}


# --- other settings ---------------------------------------------------------------------------------------------------


def assert_alike(pair: Pair) -> None:
    """The same pixels, and the same logits for a question about each picture."""
    for image in pictures():
        template = conv_templates["vicuna_v1"].copy()
        template.append_message(template.roles[0], f"<image>\n{QUESTIONS[2]}")
        template.append_message(template.roles[1], None)
        ids = tokenizer_image_token(template.get_prompt(), pair.tokenizer, return_tensors="pt")[None]
        pixels = asked_pixels([image], pair.image_processor, pair.model.config)
        given = inputs(pair, image, QUESTIONS[2])
        assert torch.equal(given["pixel_values"], pixels)
        with torch.inference_mode():
            expected = pair.model(input_ids=ids, images=pixels).logits[0, -1]
            found = pair.exported(**given).logits[0, -1]
        assert torch.equal(found[: len(expected)], expected)


@pytest.mark.parametrize(
    ("file", "settings"),
    [
        ("config.json", {"image_aspect_ratio": "pad"}),
        ("config.json", {"image_aspect_ratio": "resize"}),
        ("config.json", {"mm_vision_select_layer": -2, "mm_vision_select_feature": "cls_patch"}),
        ("config.json", {"tie_word_embeddings": True}),
        ("config.json", {"rope_scaling": {"rope_type": "linear", "factor": 2.0}}),
        ("tokenizer_config.json", {"legacy": True}),
        ("vision_tower/preprocessor_config.json", {"size": {"shortest_edge": 56}, "do_center_crop": True}),
    ],
    ids=["padded", "stretched", "other features", "tied", "longer", "legacy tokenizer", "cropped"],
)
def test_other_settings_are_carried_over(changed_base, tmp_path, file, settings):
    folder = changed_base(file, **settings)
    if file.startswith("vision_tower"):
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | {"mm_vision_tower": str(folder / "vision_tower")}))
    pair = export(folder, tmp_path / "out")
    assert_alike(pair)
    assert not hasattr(pair.exported.config, "aurora"), "a model without perception tokens has none afterwards"


def test_a_legacy_tokenizer_finds_its_perception_tokens(finetuned, tmp_path):
    folder = tmp_path / "legacy"
    shutil.copytree(finetuned[0], folder)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | {"legacy": True}))
    pair = export(folder, tmp_path / "out")
    assert_alike(pair)
    for text in ("(<PIXEL_1>,<PIXEL_2>)", f"The map is {'<DEPTH_3>' * 3}. So <DEPTH_END>a"):
        assert pair.processor.tokenizer(text).input_ids == pair.tokenizer(text, add_special_tokens=False).input_ids


def test_pieces_that_were_set_before_a_tokenizers_training_stay_whole():
    """The tiny base has hundreds: ` man` is one, which no merge leads to."""
    tokenizer = slow_tokenizer(TINY_BASE)
    fast = fast_tokenizer(tokenizer)
    text = "USER: How many, at 17 53?\nThink so.</s>USER: <image>\nHow  many banners? ASSISTANT: 71 by 71."
    check_same_ids(tokenizer, fast, prompts=[text])
    begun = fast.bos_token + after_bos(tokenizer) + text.replace("<image>", "")
    assert fast.decode(fast(begun).input_ids) == begun


def test_a_prompt_begins_once_however_an_engine_encodes_it(pair):
    """The template writes `<s>`; whether the tokenizer is asked for special tokens makes no difference."""
    prompt = pair.processor.apply_chat_template([message(pictures()[0], QUESTIONS[0])], add_generation_prompt=True)
    written, asked = (pair.processor.tokenizer(prompt, add_special_tokens=added).input_ids for added in (False, True))
    assert written == asked
    assert written.count(pair.processor.tokenizer.bos_token_id) == 1
    kept = json.loads((pair.out / "tokenizer.json").read_text())
    assert not (kept["post_processor"] or {}).get("special_tokens")


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"image_aspect_ratio": "anyres", "image_grid_pinpoints": [[56, 112]]}, "image_aspect_ratio is anyres"),
        ({"mm_use_im_start_end": True}, "mm_use_im_start_end is True"),
    ],
)
def test_what_the_format_cannot_say_is_refused(changed_base, tmp_path, settings, reason):
    folder = changed_base("config.json", mm_vision_tower=str(tmp_path / "changed" / "vision_tower"), **settings)
    processor = folder / "vision_tower" / "preprocessor_config.json"  # anyres needs one that keeps an image's shape
    processor.write_text(json.dumps(json.loads(processor.read_text()) | {"size": {"shortest_edge": 56}}))
    with pytest.raises(AuroraError, match=reason):
        export_hugging_face(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_there_stays(workshop, tmp_path):
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(AuroraError, match="already exists"):
        export_hugging_face(workshop.base, tmp_path)
    with pytest.raises(AuroraError, match="no checkpoint here"):
        export_hugging_face(tmp_path, tmp_path / "out")
    assert (tmp_path / "mine").read_text() == "mine"


# --- parts ------------------------------------------------------------------------------------------------------------


def test_the_image_token_never_wins():
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(50, 8, generator=generator)
    whole = with_image_row(matrix, words=50, image=50, rows=51)
    assert torch.equal(whole[:50], matrix)
    logits = torch.randn(1000, 8, generator=generator) @ whole.T
    assert (logits.argmax(dim=1) != 50).all()
    assert (logits.softmax(dim=1)[:, 50] < 1 / 50).all()


def test_a_row_that_was_padding_becomes_the_images():
    matrix = torch.arange(12.0).reshape(6, 2)
    whole = with_image_row(matrix, words=4, image=4, rows=6)
    assert whole.tolist() == [[0, 1], [2, 3], [4, 5], [6, 7], [3, 4], [10, 11]]


@pytest.mark.parametrize("conversation", ["vicuna_v1", "llava_v1"])
@pytest.mark.parametrize("answered", [0, 1, 2])
def test_the_chat_template_writes_what_llava_writes(conversation, answered):
    from transformers.utils.chat_template_utils import render_jinja_template

    template = conv_templates[conversation].copy()
    messages = []
    for number in range(answered + 1):
        question = [{"type": "text", "text": f"What's {number}?\n"}] + [{"type": "image"}] * (number == 0)
        messages.append({"role": "user", "content": question})
        template.append_message(template.roles[0], "<image>\n" * (number == 0) + f"What's {number}?\n")
        answer = f" It's “{number}” \\o/" if number < answered else None
        template.append_message(template.roles[1], answer)
        if answer is not None:
            messages.append({"role": "assistant", "content": answer})
    (filled,), _ = render_jinja_template(
        [messages], chat_template=chat_template(conversation), add_generation_prompt=True, bos_token="<s>"
    )
    assert filled == "<s>" + template.get_prompt()


def test_a_system_message_takes_the_place_of_llavas():
    from transformers.utils.chat_template_utils import render_jinja_template

    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}]
    (filled,), _ = render_jinja_template([messages], chat_template=chat_template("vicuna_v1"), bos_token="<s>")
    assert filled == "<s>Be brief. USER: Hello "


@pytest.mark.parametrize("conversation", ["llava_llama_2", "nothing"])
def test_other_conversations_are_refused(conversation):
    with pytest.raises(AuroraError, match=f"'{conversation}' cannot be exported; available: .*vicuna_v1"):
        chat_template(conversation)
