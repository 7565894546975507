"""What a model wrote, read back: answer, map, boxes and points in the image's own pixels."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from transformers import CLIPImageProcessor, SiglipImageProcessor

from llava_aurora.data.images.frame import FrameTransform
from llava_aurora.data.images.image_reader import asked_pixels
from llava_aurora.errors import AuroraError
from llava_aurora.generation.result import Result, Timings, asked, folded
from llava_aurora.tokens import build_kinds
from llava_aurora.tokens.box import BoxKind
from llava_aurora.tokens.mask import MaskKind, coco_rle
from llava_aurora.tokens.perception import PerceptionTokens
from llava_aurora.tokens.vocabulary import PerceptionIds, PerceptionVocabulary

FRAME = 336
BOX = BoxKind(frame=FRAME)
BOXES = PerceptionTokens(
    kinds={"box": BOX},
    ids=PerceptionIds(
        vocabulary=PerceptionVocabulary((BOX.family,)), first_ids={"PIXEL": 0}, separators={"PIXEL": (9,)}
    ),
)
CROPPING = CLIPImageProcessor(size={"shortest_edge": FRAME}, crop_size={"height": FRAME, "width": FRAME})
RESIZING = SiglipImageProcessor(size={"height": FRAME, "width": FRAME})
GRID = [[336, 672], [672, 336], [672, 672]]
TIMINGS = Timings(preparing=1.0, generating=3.0, tokens=6, forward_passes=5)


def read(text, *, ids=(), image=None, perception=BOXES, ratio="pad", processor=CROPPING, finished=True, **changes):
    image = image or Image.new("RGB", (FRAME, FRAME))
    config = SimpleNamespace(image_aspect_ratio=ratio, image_grid_pinpoints=GRID)
    about = {"width": image.width, "height": image.height}
    return Result(
        text=text,
        ids=ids,
        finished=finished,
        question="Where?",
        reasoning="chain",
        image=image,
        timings=TIMINGS,
        perception=perception,
        transform=lambda frame: FrameTransform.of_model(config, processor, frame=frame, **about),
        **{"token_log_probabilities": None, **changes},
    )


def point(x, y):
    return BOX.family.text((x, y))


@pytest.mark.parametrize("size", [(640, 400), (301, 700), (500, 500), (90, 200)])
@pytest.mark.parametrize(
    ("ratio", "processor"),
    [(ratio, CROPPING) for ratio in ("pad", "square", "anyres", "resize")] + [("square", RESIZING), ("pad", RESIZING)],
)
def test_boxes_go_back_to_where_the_model_saw_them(size, ratio, processor):
    """A painted box is looked up in what the vision tower gets; what a model would write for it leads back to it."""
    width, height = size
    box = (int(0.4 * width), int(0.45 * height), int(0.6 * width), int(0.65 * height))
    image = Image.new("RGB", size)
    image.paste((255, 255, 255), box)
    config = SimpleNamespace(image_aspect_ratio=ratio, image_grid_pinpoints=GRID)
    seen = asked_pixels([image], processor, config)[0].numpy()
    seen = seen[0] if ratio == "anyres" else seen  # the whole image; the parts of it come after that
    bright = (seen > seen.min() + 0.7 * (seen.max() - seen.min())).all(axis=0)
    rows, columns = np.flatnonzero(bright.any(axis=1)), np.flatnonzero(bright.any(axis=0))
    codes = BOX.encode((columns[0], rows[0], columns[-1] + 1, rows[-1] + 1))
    (found,) = read(f"It is at {BOX.family.text(codes)}.", image=image, ratio=ratio, processor=processor).boxes
    pixel = max(size) / FRAME  # one of the frame's
    assert np.abs(np.subtract(found, box)).max() <= 1.5 * pixel


def test_coordinates_in_the_padding_are_cut_off_at_the_border():
    image = Image.new("RGB", (336, 112))
    result = read(f"A {point(0, 0)}, B {point(335, 335)}", image=image)
    assert result.points == {"A": (0.0, 0.0), "B": (335.0, 112.0)}


def test_points_are_those_that_stand_after_a_letter():
    box = BOX.family.text((1, 2, 3, 4))
    result = read(f"The marked points are A {point(1, 2)}, B {point(30, 40)}. 1. {box} and {point(5, 6)}")
    assert result.points == {"A": (1, 2), "B": (30, 40)}
    assert result.boxes == ((1, 2, 3, 4),)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (f"The points are A {point(1, 2)}. It is highest at A. The answer is (A).", "(A)"),
        (f"The cubes are at\n1. {BOX.family.text((1, 2, 3, 4))}\nSo there are 1. The answer is 1.", "1"),
        (f"1. {BOX.family.text((1, 2, 3, 4))}\nSo there is one.", "So there is one"),
        (f"The marked points are A {point(1, 2)}.", ""),
        ("(B)", "(B)"),
        ("There are no cubes in the image. The answer is 0.", "0"),
        ("It costs 2.5 dollars", "It costs 2.5 dollars"),
    ],
)
def test_the_answer_is_what_follows_the_chain(text, answer):
    assert read(text).answer == answer


def test_what_was_cut_off_leaves_what_is_whole_before_it():
    begun = BOX.family.text((5, 6, 7, 8)).split(",")
    for parts in range(1, 4):
        result = read(f"A {point(1, 2)}, 1. " + ",".join(begun[:parts]), finished=False)
        assert result.points == {"A": (1, 2)}
        assert result.boxes == ()
        assert not result.finished


@pytest.fixture(scope="module")
def perception(workshop):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(workshop.base, use_fast=False)
    kinds = build_kinds({"depth": {"vqvae": str(workshop.vqvae)}, "box": {"frame": 56}}, workshop.folder)
    return PerceptionTokens.teach(tokenizer, kinds)


def test_the_last_whole_map_is_decoded(perception):
    depth = perception.kinds["depth"]
    maps = [depth.family.text([code] * 9) for code in (3, 7)]
    result = read(f"It is {maps[0]}, no, {maps[1]}, or {depth.family.start}", perception=perception)
    assert result.depth.dtype == np.uint8
    assert np.array_equal(result.depth, depth.decode([7] * 9))
    assert read("no map", perception=perception).depth is None


def test_maps_are_folded_and_one_that_is_being_written_says_how_far_it_is(perception):
    family = perception.kinds["depth"].family
    whole = family.text(range(9))
    assert folded(f"The map is {whole}. Good.", perception) == "The map is [depth map, 9 codes]. Good."
    begun = family.start + "".join(map(family.token, range(4)))
    assert folded(f"{whole} and {begun}", perception) == "[depth map, 9 codes] and [depth map, 4 of 9 codes]"
    assert folded("no map", None) == "no map"
    assert [len(span.codes) for span in family.whole(f"{whole} {begun}")] == [9]


def test_log_probabilities_are_those_of_the_codes(perception):
    depth, pixels = perception.vocabulary.families
    first = perception.ids.first_code_id(pixels)
    comma = perception.ids.separators["PIXEL"]
    ids = [5, *perception.ids.ids(depth, range(9)), 6, first + 3, *comma, first + 4, 7]
    text = f"word {depth.text(range(9))} word {pixels.text((3, 4))} word"
    values = tuple(-float(place) for place in range(len(ids)))
    result = read(text, ids=ids, token_log_probabilities=values, perception=perception)
    assert result.log_probabilities["depth"] == (tuple(-float(place) for place in range(2, 11)),)
    assert result.log_probabilities["box"] == ((-13.0, -14.0 - len(comma)),)


def test_json_holds_all_but_pictures(perception):
    depth = perception.kinds["depth"]
    result = read(
        f"A {perception.kinds['box'].family.text((1, 2))} {depth.family.text([1] * 9)}", perception=perception
    )
    content = json.loads(json.dumps(result.to_json()))
    names = "question reasoning reasoning_prompt answer text boxes points masks log_probabilities timings finished"
    assert set(content) == set(names.split())
    assert content["points"]["A"] == pytest.approx([6, 12])
    assert content["timings"] == {**vars(TIMINGS), "per_token": 0.5}


def test_the_picture_shows_the_map_beside_the_image(perception):
    image = Image.new("RGB", (200, 100), (0, 0, 255))
    depth = perception.kinds["depth"].family.text([1] * 9)
    box = perception.kinds["box"].family.text((10, 20, 40, 45))
    without, with_map = (read(text, perception=perception, image=image).figure() for text in (box, f"{box} {depth}"))
    assert with_map.width == pytest.approx(2 * without.width + 40, rel=0.02)  # of the colour bar
    colors = np.asarray(without).reshape(-1, 3)
    assert (np.abs(colors.astype(int) - (255, 230, 0)).max(axis=1) < 40).sum() > 200  # the box
    assert (np.abs(colors.astype(int) - (0, 0, 255)).max(axis=1) < 40).mean() > 0.4  # the image


@pytest.mark.parametrize(("width", "height"), [(1, 1), (3000, 20), (20, 3000)])
def test_any_shape_of_image_can_be_drawn(width, height):
    result = read("A long answer. " * 60, image=Image.new("L", (width, height)))
    picture = result.figure()
    assert picture.mode == "RGB"
    assert max(picture.size) < 6000


def test_a_chain_is_asked_for_by_its_cue_once():
    cue = "How many? Think step by step."
    assert asked("How many? ", "chain") == asked(cue, "chain") == asked(f" {cue}", "direct") == cue
    assert asked("How many?", "direct") == "How many?"
    assert asked(" ", "chain") == ""
    with pytest.raises(AuroraError, match="unknown reasoning 'none'; available: chain, direct"):
        asked("?", "none")


@pytest.mark.parametrize(
    ("prompt", "chain"),
    [
        ("Where, how deep, and so?", "How many? Where, how deep, and so?"),
        ("\nWhere, how deep, and so? ", "How many?\nWhere, how deep, and so?"),
        ("", "How many?"),
        (None, "How many? Think step by step."),
    ],
)
def test_what_asks_for_a_chain_can_be_given(prompt, chain):
    assert asked("How many? ", "chain", prompt) == asked(chain, "chain", prompt) == chain
    assert asked("How many?", "direct", prompt) == "How many?"


def test_a_notebook_shows_the_figure():
    result = read('The answer is <b>"A"</b>.')
    html = result._repr_html_()
    assert html.startswith('<img src="data:image/png;base64,')
    assert "<b>" not in html


def test_masks_are_in_the_pixels_of_the_image():
    kind = MaskKind()
    perception = SimpleNamespace(kinds={"mask": kind})
    mask = np.zeros((256, 256), bool)
    mask[64:192, 128:] = True
    result = read(f"It is {kind.text(mask)}.", perception=perception)
    (found,) = result.annotations("mask")
    assert found.shape == result.image.size[::-1]
    assert result.to_json()["masks"] == [coco_rle(found)]
    assert result.answer == ""
    assert np.asarray(result.figure()).any()
