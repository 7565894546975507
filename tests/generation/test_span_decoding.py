"""Few forward passes instead of one a token: the same text as greedy decoding gives, whatever is drafted."""

import numpy as np
import pytest
import torch
from PIL import Image

from llava_aurora.errors import AuroraError
from llava_aurora.generation.drafts import Phrases, wording_of
from llava_aurora.generation.inputs import prepare_inputs
from llava_aurora.generation.predictor import Predictor
from llava_aurora.generation.span_decoding import SpanDecoder
from llava_aurora.model.checkpoint import load_pretrained_model
from llava_aurora.model.constraint import PerceptionLogitsProcessor
from llava_aurora.model.span_masking import masked_spans
from llava_aurora.tasks.prompts import Prompts

pytestmark = pytest.mark.deepspeed
CODES = 9
NEW = 40
BEGINS = "is <DEPTH_START>"
MAP_BEGINS = "The depth map is <DEPTH_START>"
QUESTIONS = (
    "Write down the depth map of this image.",
    "Which of the points A (<PIXEL_3>,<PIXEL_40>), B (<PIXEL_50>,<PIXEL_6>) is closest? Think step by step.",
    "Which of the marked points A, B or C is closest to the camera? Think step by step.",
    "How many red cubes are in the image? Think step by step.",
    "Red?",
)


@pytest.fixture(scope="module")
def loaded(finetuned_lora):
    return load_pretrained_model(str(finetuned_lora[0]), device="cpu")


@pytest.fixture(scope="module")
def decoder(loaded):
    """Makes decoders that know the wording of the prompts."""

    def make(**options):
        tokenizer, model, _, _ = loaded
        phrases = wording_of(Prompts(), tokenizer=tokenizer, perception=model.perception)
        return SpanDecoder(model, phrases=phrases, **options)

    return make


@pytest.fixture(scope="module")
def asked():
    """A hundred pairs of an image and a question, in batches of mixed lengths."""
    rng = np.random.default_rng(0)
    images = [Image.fromarray(rng.integers(0, 256, (56, 56, 3), dtype=np.uint8)) for _ in range(20)]
    pairs = [(image, question) for image in images for question in QUESTIONS]
    return [pairs[number] for number in rng.permutation(len(pairs))]


def test_two_hundred_answers_are_those_of_greedy_decoding(loaded, decoder, asked):
    made, ours, greedy = decoder(), 0, 0
    for start in range(0, len(asked), 20):
        batch = asked[start : start + 20]
        for answer_start in ("", MAP_BEGINS):
            expected = answers(loaded, batch, answer_start)
            decoded = decode(loaded, made, batch, answer_start)
            assert [row.ids for row in decoded] == expected
            ours += sum(row.passes for row in decoded)
            greedy += sum(map(len, expected))
    assert ours < greedy


def test_without_the_constraint_too(loaded, decoder, asked):
    expected = answers(loaded, asked[:10], constrained=False)
    assert [row.ids for row in decode(loaded, decoder(), asked[:10], constrained=False)] == expected


def test_probabilities_are_those_of_greedy_decoding(loaded, decoder, asked):
    images, questions = zip(*asked[:8], strict=True)
    greedy = predictor_of(loaded).write(images, questions, max_new_tokens=NEW)
    for answer, row in zip(greedy, decode(loaded, decoder(), asked[:8]), strict=True):
        count = len(answer.ids)
        np.testing.assert_allclose(row.log_probabilities[:count], answer.token_log_probabilities, atol=1e-4)


def test_words_that_were_written_before_cost_no_pass_of_their_own(loaded, asked):
    decoder = SpanDecoder(loaded[1], phrases=Phrases())
    first, again = (decode(loaded, decoder, asked[:1])[0] for _ in range(2))
    assert first.ids == again.ids
    assert again.passes < first.passes


def test_an_answer_of_known_words_is_checked_in_the_pass_over_its_question(loaded, asked):
    decoder, processor = SpanDecoder(loaded[1], phrases=Phrases()), Beginning(loaded[1].perception, [5, 9, 7, 9, 11])
    first, again = (decode(loaded, decoder, asked[:3], processor=processor, limit=5) for _ in range(2))
    assert [row.passes for row in first] == [5] * 3
    assert [row.passes for row in again] == [1] * 3
    assert [row.ids for row in first] == [row.ids for row in again] == [[5, 9, 7, 9, 11]] * 3


def test_what_is_said_behind_a_word_that_changes_into_one_of_another_kind_is_not_drafted(loaded, asked):
    """One coordinate for another changes nothing; behind 8 that becomes 7 stands what follows 7, not what 8 led to."""
    perception = loaded[1].perception
    one = perception.ids.first_code_id(perception.kinds["box"].family)
    other = one + 1
    phrases = Phrases()
    phrases.remember([7, 9, 11])
    decoder = SpanDecoder(loaded[1], phrases=phrases)
    drafted, written = (
        decode(loaded, decoder, asked[:1], processor=Succession(ids), limit=4)[0]
        for ids in ({None: one, one: 8, 8: 6, 6: 10}, {None: other, one: 7, other: 7, 8: 6, 6: 10, 7: 9, 9: 11})
    )
    assert drafted.ids == [one, 8, 6, 10]
    assert written.ids == [other, 7, 9, 11]
    assert written.passes == 2


def test_behind_a_digit_that_changes_into_another_the_draft_goes_on(loaded, decoder, asked):
    """A value is guessed as some digits; what the model says behind them is fed next, with its own digits."""
    one, two = loaded[0].convert_tokens_to_ids(["1", "2"])
    passes = {}
    for name, kinds in {"digits": [{one, two}], "words": []}.items():
        phrases = Phrases(kinds)
        phrases.remember([7, one, 9, one, 11])
        made = SpanDecoder(loaded[1], phrases=phrases)
        processor = Succession({None: 7, 7: two, two: 9, 9: two, one: 9})
        row = decode(loaded, made, asked[:1], processor=processor, limit=6)[0]
        assert row.ids == [7, two, 9, two, 9, two]
        passes[name] = row.passes
    assert passes["digits"] < passes["words"]


class Succession(PerceptionLogitsProcessor):
    """Lets each token decide the next, and None the first."""

    def __init__(self, following):
        self.following = following

    def along(self, written, scores):
        behind = [self.following.get(token, 0) for token in [None, *written][len(written) + 1 - len(scores) :]]
        scores = torch.full_like(scores, float("-inf"))
        scores[range(len(behind)), behind] = 0.0
        return scores


# --- maps in one pass -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("known", [True, False], ids=["START is drafted", "START comes by surprise"])
def test_a_map_takes_one_pass_and_is_what_the_model_says_at_start_and_at_every_mask(loaded, decoder, asked, known):
    made = decoder(mode="parallel") if known else SpanDecoder(loaded[1], phrases=Phrases(), mode="parallel")
    rows = write_maps(loaded, made, asked[:6])
    for row, expected in zip(rows, guessed_maps(loaded, asked[:6], rounds=1), strict=True):
        assert row.ids[-CODES - 1 : -1] == expected
        assert row.map_passes == 1
        assert row.passes < len(row.ids) / 2
        assert len(row.log_probabilities) == len(row.ids)


def write_maps(loaded, decoder, batch):
    """Answers that begin with "is START" and end behind the map's END."""
    tokenizer, model, _, _ = loaded
    begins = tokenizer(BEGINS, add_special_tokens=False).input_ids
    processor = Beginning(model.perception, begins)
    return decode(loaded, decoder, batch, processor=processor, limit=len(begins) + CODES + 1)


class Beginning(PerceptionLogitsProcessor):
    """The constraint, which also forces an answer to begin with some ids."""

    def __init__(self, perception, begins):
        super().__init__(perception)
        self.begins = begins

    def along(self, written, scores):
        scores = super().along(written, scores)
        first = len(written) - len(scores) + 1
        for row, forced in zip(range(len(scores)), self.begins[first:], strict=False):
            scores[row, :forced] = scores[row, forced + 1 :] = float("-inf")
        return scores


def test_refinements_are_jacobi_iterations(loaded, decoder, asked):
    rows = write_maps(loaded, decoder(mode="parallel", refinements=3), asked[:6])
    assert [row.ids[-CODES - 1 : -1] for row in rows] == guessed_maps(loaded, asked[:6], rounds=3)
    assert [row.map_passes for row in rows] == [3] * 6


def test_with_as_many_refinements_as_codes_the_map_is_that_of_greedy_decoding(loaded, decoder, asked):
    rows = decode(loaded, decoder(mode="parallel", refinements=CODES), asked[:6], MAP_BEGINS)
    assert [row.ids for row in rows] == answers(loaded, asked[:6], MAP_BEGINS)


def test_what_follows_a_parallel_map_is_what_greedy_decoding_says_behind_that_map(loaded, decoder, asked):
    tokenizer = loaded[0]
    for pair, row in zip(asked[:4], decode(loaded, decoder(mode="parallel"), asked[:4], MAP_BEGINS), strict=True):
        written = MAP_BEGINS + "".join(tokenizer.convert_ids_to_tokens(row.ids[: CODES + 1]))
        behind = row.ids[CODES + 1 :]
        assert answers(loaded, [pair], written)[0][: len(behind)] == behind


def test_every_pass_tells_what_it_wrote(loaded, decoder, asked):
    told = {0: [], 1: []}
    rows = decode(loaded, decoder(), asked[:2], on_written=lambda row, ids: told[row].extend(ids))
    assert [told[0], told[1]] == [row.ids for row in rows]


def test_what_cannot_be_is_said(loaded, decoder, finetuned):
    model = load_pretrained_model(str(finetuned[0]), device="cpu")[1]
    with pytest.raises(AuroraError, match=r"not trained to write a map in one pass.*--span_mask_probability"):
        SpanDecoder(model, phrases=Phrases(), mode="parallel")
    with pytest.raises(AuroraError, match="at least one forward pass, not 0"):
        decoder(mode="parallel", refinements=0)
    image = Image.new("RGB", (56, 56))
    with pytest.raises(AuroraError, match="needs the constraint on"):
        decode(loaded, decoder(mode="parallel"), [(image, "Red?")], constrained=False)
    model.perception = None
    with pytest.raises(AuroraError, match="no perception tokens"):
        SpanDecoder(model, phrases=Phrases())


def predictor_of(loaded):
    tokenizer, model, image_processor, _ = loaded
    return Predictor(tokenizer=tokenizer, model=model, image_processor=image_processor)


def guessed_maps(loaded, batch, *, rounds):
    """The same by whole forward passes without a cache, one question at a time."""
    tokenizer, model, processor, _ = loaded
    span = masked_spans(model.perception)[0]
    maps = []
    for image, question in batch:
        inputs = prepare_inputs(tokenizer, model, processor, images=[image], questions=[question], answer_start=BEGINS)
        fed = [span.mask] * (CODES - 1)
        for _ in range(rounds):
            embeddings = model.get_input_embeddings()(torch.tensor([fed]))
            with torch.inference_mode():
                logits = model(inputs_embeds=torch.cat([inputs.embeddings, embeddings], dim=1)).logits[0]
            codes = logits[-CODES:, span.codes.start : span.codes.stop].argmax(-1) + span.codes.start
            fed = codes.tolist()[:-1]
        maps.append(codes.tolist())
    return maps


def answers(loaded, batch, answer_start="", **options):
    """What transformers' greedy search writes, up to the end of sequence."""
    tokenizer = loaded[0]
    images, questions = zip(*batch, strict=True)
    given = len(tokenizer(answer_start, add_special_tokens=False).input_ids)
    options |= {"answer_start": answer_start, "max_new_tokens": NEW}
    return [
        [*answer.ids[given:], *[tokenizer.eos_token_id] * answer.finished]
        for answer in predictor_of(loaded).write(images, questions, **options)
    ]


def decode(loaded, decoder, batch, answer_start="", *, constrained=True, processor=None, limit=NEW, **options):
    if constrained and processor is None:
        processor = PerceptionLogitsProcessor(loaded[1].perception)
    tokenizer, model, image_processor, _ = loaded
    images, questions = zip(*batch, strict=True)
    inputs = prepare_inputs(
        tokenizer, model, image_processor, images=images, questions=questions, answer_start=answer_start
    )
    return decoder.decode(
        inputs,
        processor=processor,
        limits=[min(room, limit) for room in inputs.room],
        eos_token_id=tokenizer.eos_token_id,
        **options,
    )
