"""Asking a trained model as one object: alone, in batches, as it writes; and what it refuses."""

import importlib.util
import threading

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPImageProcessor

from llava_aurora import Aurora, Result
from llava_aurora.errors import AuroraError
from llava_aurora.generation.inputs import MOST_PIXELS, _shown, context_length, prepare_inputs
from llava_aurora.generation.span_decoding import SpanDecoder
from llava_aurora.model.constraint import PerceptionLogitsProcessor

pytestmark = pytest.mark.deepspeed
WORDS = ["which", "of the marked points", "is", "closest", "to the camera", "and", "how many", "red cubes", "are", "in"]
SIZES = [(56, 56), (90, 40), (30, 120), (7, 200), (64, 64)]


@pytest.fixture(scope="module")
def aurora(finetuned):
    return Aurora.from_pretrained(finetuned[0], device="cpu")


@pytest.fixture(scope="module")
def image():
    return picture(np.random.default_rng(1), (90, 60))


def picture(rng, size, mode="RGB"):
    return Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)).convert(mode)


def mixed_questions(count, *, seed):
    """Images of every shape and mode with questions of 1 to 100 words."""
    rng = np.random.default_rng(seed)
    modes = ["RGB", "L", "RGBA", "P"]
    images = [picture(rng, SIZES[n % len(SIZES)], modes[n % len(modes)]) for n in range(count)]
    questions = [" ".join(rng.choice(WORDS, rng.integers(1, 40))) + "?" for _ in range(count)]
    return images, questions


def start_of_map(aurora):
    return aurora.model.perception.kinds["depth"].family.start


@pytest.fixture
def seen_as(aurora, monkeypatch):
    """Returns what makes the model see images by another aspect ratio."""

    def change(ratio):
        monkeypatch.setattr(aurora.model.config, "image_aspect_ratio", ratio)
        monkeypatch.setattr(aurora.model.config, "image_grid_pinpoints", [[56, 112], [112, 56]], raising=False)
        cutting = CLIPImageProcessor(size={"shortest_edge": 56}, crop_size={"height": 56, "width": 56})
        if ratio == "anyres":
            monkeypatch.setattr(aurora, "image_processor", cutting)

    return change


@pytest.mark.parametrize(
    ("ratio", "count", "options"),
    [("square", 42, {}), ("pad", 42, {"mapped": True}), ("anyres", 6, {"reasoning": "direct"})],
    ids=["resized", "padded", "anyres"],
)
def test_batches_of_mixed_questions_give_what_one_at_a_time_gives(aurora, seen_as, ratio, count, options):
    seen_as(ratio)
    images, questions = mixed_questions(count, seed=count)
    options = {**options, "max_new_tokens": 16}
    if options.pop("mapped", False):
        options["answer_start"] = f"It is {start_of_map(aurora)}"
    together = aurora.ask(images, questions, batch_size=16, **options)
    alone = [aurora.ask(*pair, **options) for pair in zip(images, questions, strict=True)]
    assert together == alone
    assert len({result.text for result in alone}) > 1
    for one, other in zip(together, alone, strict=True):
        assert one.log_probabilities.keys() == other.log_probabilities.keys()
        for name, spans in one.log_probabilities.items():
            assert np.allclose(sum(spans, ()), sum(other.log_probabilities[name], ()), atol=1e-3)
        assert (one.depth is None) == (other.depth is None)
        assert one.depth is None or np.array_equal(one.depth, other.depth)


def test_one_image_with_many_questions_and_one_question_about_many_images(aurora, image):
    many = aurora.ask(image, ["How many?", "Where?"], max_new_tokens=4)
    assert [result.question for result in many] == ["How many?", "Where?"]
    many = aurora.ask([image] * 3, "How many?", max_new_tokens=4, batch_size=2)
    assert many == [aurora.ask(image, "How many?", max_new_tokens=4)] * 3
    assert aurora.ask([image], ["?"], max_new_tokens=1)[0].finished is False
    assert aurora.ask([], []) == []
    with pytest.raises(AuroraError, match="2 questions for 3 images; give one per image, or one for all"):
        aurora.ask([image] * 3, ["?", "?"])


def test_points_are_named_or_drawn_and_arrays_are_images(aurora, image, seen_as):
    seen_as("pad")  # 90 × 60 pixels in the middle of 90 × 90
    named = aurora.ask(image, "Is {points} far?", points={"A": (0, 0), "C": (89, 59.5)}, max_new_tokens=3)
    assert named.question == "Is A (<PIXEL_0>,<PIXEL_9>), C (<PIXEL_55>,<PIXEL_46>) far?"
    assert named.image.size == image.size
    drawn, plain = aurora.ask([np.asarray(image)] * 2, "Far?", points=[{"A": (45, 30)}, {}], max_new_tokens=3)
    changed = np.abs(np.asarray(drawn.image).astype(int) - np.asarray(image)).max(axis=2) > 0
    rows, columns = np.nonzero(changed)
    assert rows.min() < 30 <= rows.max()
    assert columns.min() < 45 < columns.max()
    assert changed.mean() < 0.1
    assert plain == aurora.ask(image, "Far?", max_new_tokens=3)
    for points, message in (
        ({"A": (90, 3)}, r"point A \(90, 3\) is outside the image, 90 × 60 pixels"),
        ({"AB": (1, 1)}, "named by one capital letter"),
        ([{}, {}], "2 sets of points for 1 questions"),
    ):
        with pytest.raises(AuroraError, match=message):
            aurora.ask(image, "?", points=points)


def test_an_image_is_asked_about_as_it_is_to_be_seen(aurora, image, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # stored on its side
    image.save(tmp_path / "turned.png", exif=exif)
    upright = image.transpose(Image.Transpose.ROTATE_270)
    expected = aurora.ask(upright, "How far?", max_new_tokens=9)
    for given in (tmp_path / "turned.png", Image.open(tmp_path / "turned.png")):
        result = aurora.ask(given, "How far?", max_new_tokens=9)
        assert result == expected
        assert result.image.size == upright.size


def test_a_chain_and_a_direct_answer_are_asked_for_differently(aurora, image):
    chain, direct = (
        aurora.ask(image, "How many cubes?", reasoning=each, max_new_tokens=9) for each in ("chain", "direct")
    )
    assert (chain.reasoning, direct.reasoning) == ("chain", "direct")
    with_cue = aurora.ask(image, "How many cubes? Think step by step.", reasoning="direct", max_new_tokens=9)
    assert with_cue.text == chain.text


def test_log_probabilities_are_those_of_the_constrained_model(aurora, image):
    """Against one forward pass over the whole text, without a cache."""
    start = f"A ({start_of_map(aurora)}"
    (result,) = aurora.ask([image], ["How far?"], answer_start=start, max_new_tokens=14, reasoning="direct")
    model, perception = aurora.model, aurora.model.perception
    depth = perception.kinds["depth"].family
    inputs = prepare_inputs(
        aurora.tokenizer, model, aurora.image_processor, images=[image], questions=["How far?"], answer_start=start
    )
    (span,) = depth.parse(result.text[: result.text.index(depth.end) + len(depth.end)])
    codes = [perception.ids.first_code_id(depth) + code for code in span.codes]
    with torch.inference_mode():
        rest = model.get_input_embeddings()(torch.tensor([codes]))
        hidden = model.model(inputs_embeds=torch.cat([inputs.embeddings, rest], dim=1)).last_hidden_state
        scores = model.lm_head(hidden[0, -len(codes) - 1 : -1])
    processor = PerceptionLogitsProcessor(perception)
    expected = []
    for place, code in enumerate(codes):
        allowed = ~processor.mask(torch.tensor([inputs.starts[0] + codes[:place]]), vocabulary_size=scores.shape[1])[0]
        expected.append(scores[place][allowed].log_softmax(0)[allowed[:code].sum()].item())
    assert result.log_probabilities["depth"][0] == pytest.approx(expected, abs=1e-3)
    assert all(-20 < value <= 0 for value in expected)


def test_beams_and_samples_are_asked_for_by_their_options(aurora, image):
    beams = aurora.ask(image, "How far?", answer_start=start_of_map(aurora), num_beams=3, max_new_tokens=12)
    assert beams.log_probabilities is None
    assert beams.depth is not None
    sampled = aurora.ask(image, "How far?", answer_start=start_of_map(aurora), do_sample=True, max_new_tokens=12)
    assert len(sampled.log_probabilities["depth"][0]) == 9


def test_an_answer_goes_on_to_the_end_of_the_context_and_no_further(aurora, image, monkeypatch):
    """Each row to its own end, in a batch as alone."""
    monkeypatch.setattr(aurora.model.config, "tokenizer_model_max_length", 160)
    endless = {"suppress_tokens": [aurora.tokenizer.eos_token_id]}
    questions = ["How far?", "How far? " * 7]
    together = aurora.ask(image, questions, **endless)
    for question, result in zip(questions, together, strict=True):
        assert not result.finished
        inputs = prepare_inputs(
            aurora.tokenizer,
            aurora.model,
            aurora.image_processor,
            images=[image],
            questions=[f"{question.strip()} Think step by step."],
        )
        length = inputs.embeddings.shape[1]
        assert inputs.room == [context_length(aurora.model) - length]
        alone = aurora.ask(image, question, **endless)
        assert alone == result
        assert alone.timings.tokens == alone.timings.forward_passes == inputs.room[0]
    assert together[0].timings.tokens > together[0].timings.forward_passes


def test_a_question_longer_than_the_context_is_refused_with_both_lengths(aurora, image):
    for words in (170, 3000):
        with pytest.raises(AuroraError, match=r"question 'far .*' takes \d+ tokens with its image, .* context is 512"):
            aurora.ask([image, image], ["Why?", "far " * words])


# --- as it is written -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("begun", ["", "It is ", "map"])
def test_the_pieces_of_a_stream_are_the_text(aurora, image, begun):
    halves = aurora.tokenizer.convert_tokens_to_ids([f"<0x{byte:02X}>" for byte in range(256)])  # of characters
    options = {"max_new_tokens": 30, "answer_start": start_of_map(aurora) if begun == "map" else begun}
    options["suppress_tokens"] = halves
    *pieces, result = aurora.stream(image, "How far?", **options)
    assert isinstance(result, Result)
    assert "".join(pieces) == result.text
    assert result == aurora.ask(image, "How far?", **options)
    assert len(pieces) > 5
    if begun == "map":
        assert all(piece.count("<") <= 2 for piece in pieces), "codes come one by one"


def test_closing_a_stream_stops_the_writing(aurora, image):
    passes = []
    hook = aurora.model.model.register_forward_hook(lambda *_: passes.append(1))
    before = threading.active_count()
    endless = {"suppress_tokens": [aurora.tokenizer.eos_token_id]}
    writing = aurora.stream(image, "How far?", **endless)
    assert isinstance(next(writing), str)
    writing.close()
    hook.remove()
    assert threading.active_count() == before
    assert len(passes) < 400, "the context has room for more"


def test_few_passes_write_what_greedy_decoding_writes(aurora, image):
    questions = ["Why?", "Write down the depth map of this image.", "How many red cubes are in the image?"]
    greedy, _, verified = (
        aurora.ask(image, questions, max_new_tokens=30, decoding=decoding)
        for decoding in ("greedy", "verified", "verified")
    )
    assert [result.text for result in verified] == [result.text for result in greedy]
    assert verified[0].timings.forward_passes < greedy[0].timings.forward_passes
    *pieces, result = aurora.stream(image, questions[0], max_new_tokens=30, decoding="verified")
    assert result.text == greedy[0].text == "".join(pieces)


def test_closing_a_stream_stops_writing_in_few_passes_too(aurora, image, monkeypatch):
    passes = []
    choices = SpanDecoder._choices
    monkeypatch.setattr(SpanDecoder, "_choices", lambda *a, **k: passes.append(1) or choices(*a, **k))
    pieces = aurora.stream(image, "Why?", max_new_tokens=400, decoding="verified")
    next(pieces)
    pieces.close()
    assert len(passes) < 400


def test_errors_come_out_of_the_stream(aurora, image):
    with pytest.raises(AuroraError, match="context is 512"):
        next(aurora.stream(image, "far " * 600))
    with pytest.raises(AuroraError, match="no such image"):
        aurora.stream("nowhere.png", "Why?")
    with pytest.raises(ValueError, match="beam"):
        list(aurora.stream(image, "Why?", num_beams=2))
    assert aurora.ask(image, "Why?", max_new_tokens=1).question == "Why?"


@pytest.mark.parametrize(
    ("options", "package"), [({"load_4bit": True}, "bitsandbytes"), ({"use_flash_attn": True}, "flash_attn")]
)
def test_a_package_that_is_missing_is_named(finetuned, monkeypatch, options, package):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(AuroraError, match=f"needs {package}; pip install"):
        Aurora.from_pretrained(finetuned[0], **options)


# --- how it is loaded -------------------------------------------------------------------------------------------------


def test_a_device_map_and_another_precision(finetuned, aurora, image):
    mapped = Aurora.from_pretrained(finetuned[0], device_map={"": "cpu"})
    assert mapped.ask(image, "Why?", max_new_tokens=9) == aurora.ask(image, "Why?", max_new_tokens=9)
    half = Aurora.from_pretrained(finetuned[0], device="cpu", torch_dtype=torch.bfloat16)
    result = half.ask(image, "Why?", max_new_tokens=12, answer_start=start_of_map(half))
    assert half.model.dtype == torch.bfloat16
    assert result.depth.shape == (48, 48)


@pytest.mark.skipif(importlib.util.find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed")
@pytest.mark.parametrize("bits", [4, 8])
def test_a_quantized_model_answers(finetuned, image, bits):
    small = Aurora.from_pretrained(finetuned[0], device="cpu", **{f"load_{bits}bit": True})
    result = small.ask(image, "Why?", max_new_tokens=12, answer_start=start_of_map(small))
    assert result.depth.shape == (48, 48)


def test_a_model_without_perception_tokens_answers_in_words(workshop, image):
    plain = Aurora.from_pretrained(workshop.base, device="cpu")
    result = plain.ask(image, "Why?", max_new_tokens=5)
    assert (result.depth, result.boxes, result.points, result.log_probabilities) == (None, (), {}, {})
    assert result.figure().mode == "RGB"


@pytest.mark.parametrize(("size", "pads"), [((100_000, 10), True), ((9000, 6000), False), ((9000, 6000), True)])
def test_an_image_that_would_fill_the_memory_is_scaled_down_for_the_model(size, pads):
    width, height = _shown(Image.new("L", size), pads=pads).size
    assert MOST_PIXELS * 0.99 < (width**2 if pads else width * height) <= MOST_PIXELS
    assert height == pytest.approx(width * size[1] / size[0], abs=1)
    photograph = Image.new("RGB", (7000, 4000))
    assert _shown(photograph, pads=pads) is photograph
