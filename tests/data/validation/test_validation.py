"""The pre-flight: each kind of problem is planted once and has to be found and named; sound files are fine."""

import copy
import dataclasses
import json

import numpy as np
import pytest
from command import llava_aurora
from PIL import Image
from transformers import AutoTokenizer
from written import write_record

from llava_aurora.data.validation import checks as validation
from llava_aurora.data.validation.checks import CheckSettings, check_file
from llava_aurora.data.validation.findings import KINDS, Findings
from llava_aurora.data.validation.labels import LabelChecks, SpanTokenizer, load_tokenizer, model_limits
from llava_aurora.errors import AuroraError
from llava_aurora.tasks.points import letter_points
from llava_aurora.tokens.vocabulary import PerceptionVocabulary, depth_family, pixel_family

FRAME, CODES, CELLS = 56, 16, 9
DEPTH, PIXELS = depth_family(codebook_size=CODES, codes_per_map=CELLS), pixel_family(frame=FRAME)


def plain(question="<image>\nHow?", answer="Fine.", **more):
    """A record of LLaVA's own."""
    turns = [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
    return {"id": "plain", "image": "a.png", "conversations": turns, **more}


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name in ("a.png", "b.png", "c.png"):
        save(folder / name, blocks(rng))
    return folder


def blocks(rng):
    """A picture that survives compression: 6 × 6 squares of random brightness, uint8 (96, 96, 3)."""
    squares = rng.integers(0, 256, (6, 6, 1), dtype=np.uint8)
    return np.repeat(np.kron(squares[..., 0], np.ones((16, 16), dtype=np.uint8))[..., None], 3, axis=2)


def save(path, pixels):
    Image.fromarray(pixels).save(path)


@pytest.fixture
def examples(writer):
    """One record of each task about marked points and boxes, by task."""
    rng = np.random.default_rng(0)
    points = letter_points([(1, 2), (30, 40), (55, 5)], [10, 200, 90], rng)
    about = {"name": "n", "image": "a.png", "rng": rng}
    things = {"thing": "red cube", "things": "red cubes", "boxes": [(1, 2, 30, 40), (5, 6, 9, 9)]}
    codes = list(range(CELLS))
    made = [
        write_record(writer, "depth_generation", codes=codes, **about),
        write_record(writer, "depth_chain", codes=codes, points=points, **about),
        write_record(writer, "depth_chain_from_coordinates", codes=codes, points=points, **about),
        write_record(writer, "depth_chain_without_points", codes=codes, points=points, **about),
        write_record(writer, "depth_direct", points=points, **about),
        write_record(writer, "depth_direct_from_coordinates", points=points, **about),
        write_record(writer, "point_location", points=points, **about),
        write_record(writer, "depth_reading", codes=codes, points=points, **about),
        write_record(writer, "depth_chain_from_map", codes=codes, points=points, name="n", rng=rng),
        write_record(writer, "depth_reading_from_map", codes=codes, points=points, name="n", rng=rng),
        write_record(writer, "box_generation", **about, **things),
        write_record(writer, "counting_chain", **about, **things),
        write_record(writer, "counting_direct", **about, **things),
        write_record(writer, "counting_chain", **about, **{**things, "boxes": []}),
        write_record(writer, "box_generation", **about, **{**things, "boxes": []}),
    ]
    return {record["aurora"]["task"]: record for record in made}


@pytest.fixture
def check(tmp_path):
    """Checks records and returns {kind: [(where, what), …]}."""

    def run(records, **settings):
        path = tmp_path / "train.json"
        path.write_text(json.dumps(records))
        return check_file(path, CheckSettings(families=(DEPTH, PIXELS), frame=FRAME, **settings)).findings

    return run


@pytest.fixture
def limits(workshop):
    return model_limits(workshop.base, depth=DEPTH, frame=FRAME)


def changed(record, *, answer=None, question=None, **truth):
    """A copy of a record with another text, or other truth."""
    record = copy.deepcopy(record)
    for turn, change in zip(record["conversations"], (question, answer), strict=True):
        turn["value"] = change(turn["value"]) if change else turn["value"]
    record["aurora"].update(truth)
    return record


def found(findings):
    return {kind: [what for _, what in findings.examples[kind]] for kind in KINDS if findings.numbers[kind]}


# --- text -------------------------------------------------------------------------------------------------------------


def test_what_the_writer_writes_is_fine(check, examples, images, limits):
    findings = check([*examples.values(), plain()], model=limits, image_folder=images)
    assert found(findings) == {}
    assert findings.records == len(examples) + 1
    assert findings.images == 1
    assert findings.tasks["counting_chain"] == 2
    assert findings.tasks["other"] == 1
    assert findings.boxes == {0: 2, 2: 3}


MAP = DEPTH.text(range(CELLS))


@pytest.mark.parametrize(
    ("kind", "record", "message"),
    [
        ("format", {"id": "x", "text": "?"}, "not LLaVA's format"),
        ("format", plain(question="no place"), "has an image and 0 places"),
        ("format", plain(aurora={"task": "depth_direct", "points": {"A": 3}}), "points that are not {letter: [x, y]}"),
        ("path", plain(image="../secret.png"), "'../secret.png' leads out of the folder"),
        ("path", plain(image="/etc/passwd"), "'/etc/passwd' leads out"),
        ("spans", plain(answer=DEPTH.start + "<DEPTH_1>" * 8 + DEPTH.end), "has 8 codes instead of 9"),
        ("spans", plain(answer=MAP.removesuffix(DEPTH.end)), "belongs to no complete DEPTH span"),
        ("spans", plain(answer="(<PIXEL_1>,<PIXEL_2>,<PIXEL_3>)"), "has 3 codes instead of 2 or 4"),
        ("spans", plain(answer=MAP.replace("_3>", "_03>")), "<DEPTH_03> at character 40 is an unknown token"),
        ("format", plain(answer="An <image>."), "<image> is in an answer"),
        ("path", plain(image="sub\\a.png"), "backslash"),
        ("path", plain(image="http://example.org/a.png"), "is a URL"),
        ("codes", plain(answer=MAP.replace("<DEPTH_8>", "<DEPTH_16>")), "code 16, number 8 of the DEPTH span"),
        ("codes", plain(answer="(<PIXEL_1>,<PIXEL_56>)"), "code 56, number 1 of the PIXEL span"),
    ],
)
def test_a_problem_of_text_is_found(check, kind, record, message):
    findings = check([plain(), record])
    assert list(found(findings)) == [kind]
    ((where, what),) = findings.examples[kind]
    assert where.startswith("record 1")
    assert message in what


@pytest.mark.parametrize(
    ("kind", "task", "change", "message"),
    [
        ("counts", "counting_chain", {"answer": lambda text: text.replace("is 2.", "is 3.")}, "count in the text: 3"),
        ("counts", "counting_chain", {"boxes": [[1, 2, 3, 4]]}, "1 boxes in the truth, but answer: 2, boxes listed: 2"),
        ("counts", "counting_direct", {"answer": lambda text: "5"}, "2 boxes in the truth, but count in the text: 5"),
        ("counts", "box_generation", {"answer": lambda text: text.split("\n")[0]}, "boxes listed: 1"),
        ("counts", "counting_chain_of_none", {"answer": lambda text: "No idea."}, "count in the text: none"),
        ("coordinates", "box_generation", {"answer": lambda text: text.replace("_30>", "_0>")}, "upside down"),
        ("letters", "depth_direct", {"answer": lambda text: "(Z)"}, "the text answers Z, but the truth is"),
        ("letters", "depth_direct", {"answer": lambda text: "It is close."}, "the text answers nothing"),
        ("letters", "depth_direct", {"depths": {"A": 1, "B": 2}}, "points A, B, C, but depths of A, B"),
        ("letters", "point_location", {"answer": lambda text: text.replace("<PIXEL_2>", "<PIXEL_3>")}, "has {'"),
        ("letters", "point_location", {"answer": lambda text: "Nowhere."}, "gives no point's coordinates"),
        ("letters", "depth_chain_from_coordinates", {"question": lambda text: text.replace("B (", "D (")}, "question"),
        ("closest", "depth_direct", {"depths": {"A": 7, "B": 7, "C": 7}}, "A, B, C are equally close"),
        ("spans", "depth_chain", {"answer": lambda text: text.replace(MAP, "dark")}, "has 0 depth spans"),
        (
            "spans",
            "depth_chain_from_map",
            {"question": lambda text: text.replace(MAP, "dark")},
            "spans in its question",
        ),
        ("spans", "depth_reading_from_map", {"question": lambda text: text + MAP}, "2 depth spans in its question"),
        ("letters", "depth_reading_from_map", {"answer": lambda text: "None."}, "gives no point's coordinates"),
        ("letters", "depth_chain_from_map", {"answer": lambda text: text.split(" The value")[0]}, "answers nothing"),
        ("spans", "depth_generation", {"answer": lambda text: text + MAP}, "has 2 depth spans"),
    ],
)
def test_text_that_contradicts_its_truth_is_found(check, examples, kind, task, change, message):
    findings = check([changed(examples[task], **change)])
    assert list(found(findings)) == [kind]
    assert message in found(findings)[kind][0]
    assert findings.examples[kind][0][0] == f"record 0 (id {examples[task]['id']})"


def test_the_answer_has_to_be_the_closest_point(check, examples):
    record = examples["depth_direct"]
    depths = record["aurora"]["depths"]
    farthest, best = min(depths, key=depths.get), max(depths, key=depths.get)
    wrong = changed(record, answer=lambda _: f"({farthest})")
    wrong["aurora"]["answer"] = farthest
    assert found(check([wrong])) == {"closest": [f"the answer is {farthest}, but {best} is the closest of {depths}"]}


def test_plain_coordinates_are_compared_too(check, examples):
    for task in ("box_generation", "point_location"):
        assert found(check([changed(examples[task], answer=PIXELS.plain)])) == {}
    moved = changed(examples["point_location"], answer=lambda text: PIXELS.plain(text).replace("(1,2)", "(1,3)"))
    assert list(found(check([moved]))) == ["letters"]


@pytest.mark.parametrize(
    ("ratio", "training", "kinds"),
    [
        ("resize", "pad", ["frame"]),
        ("pad", "square", ["frame"]),
        ("pad", "pad", []),
        ("resize", "resize", []),
        (None, "pad", ["frame"]),
        (None, "square", ["unsaid"]),
    ],
)
def test_coordinates_of_another_frame_than_training_shows_are_named(check, examples, images, ratio, training, kinds):
    save(images / "a.png", blocks(np.random.default_rng(0))[:48])
    truth = {} if ratio is None else {"aspect_ratio": ratio}
    findings = check([changed(examples["depth_chain"], **truth)], image_folder=images, aspect_ratio=training)
    assert list(found(findings)) == kinds
    if kinds == ["frame"]:
        assert "an image of 96 × 48 pixels" in found(findings)["frame"][0]
        assert f"--image_aspect_ratio {ratio or 'resize'}" in found(findings)["frame"][0]


def test_coordinates_that_are_right_or_none_at_all_are_no_matter_of_the_frame(check, examples, images):
    middle = plain(answer=f"It is at {PIXELS.text((10, 20, 30, 40))}. See (1920, 1080).")
    assert found(check([examples["box_generation"], middle], image_folder=images)) == {}
    save(images / "a.png", blocks(np.random.default_rng(0))[:48])
    words = plain(answer="It has (1920, 1080) pixels.")
    assert found(check([words, examples["depth_generation"], middle], image_folder=images)) == {
        "unsaid": ["coordinates in an image of 96 × 48 pixels, without aurora.aspect_ratio"]
    }
    theirs = plain(answer="Point A is located at (x = 10 y = 50).")
    assert list(found(check([theirs], image_folder=images))) == ["frame"]


def test_tokens_that_the_model_lacks_are_a_warning(check, examples):
    checks = validation._RecordChecks(CheckSettings(families=(DEPTH,), frame=FRAME))
    findings = checks.run([("record 0", examples["box_generation"])])
    assert findings.numbers == {"foreign": 1}
    assert findings.number("error") == 0


# --- labels -----------------------------------------------------------------------------------------------------------


def conversation(*pairs):
    turns = []
    for number, (question, answer) in enumerate(pairs):
        turns += [{"from": "human", "value": "<image>\n" * (not number) + question}, {"from": "gpt", "value": answer}]
    return plain(conversations=turns)


ROUNDS = conversation(("How?", "Fine."), ("Where?", MAP), ("And?", f"So {MAP} and\n(<PIXEL_1>,<PIXEL_2>)."))


def test_several_rounds_and_texts_without_image_are_fine(check, limits, workshop, tmp_path):
    AutoTokenizer.from_pretrained(workshop.base, use_fast=False, legacy=True).save_pretrained(tmp_path / "legacy")
    no_image = {"id": "t", "conversations": plain("How?", "Ünïcode ✓ — 你好.")["conversations"]}
    legacy = dataclasses.replace(limits, folder=tmp_path / "legacy")
    assert found(check([no_image, ROUNDS], model=legacy)) == {}


def test_upstreams_correction_for_vicunas_words_is_found_where_they_are_others(check, limits):
    """LLaVA takes off one token a round: Vicuna has USER as a word of its own, but not with a blank before it."""
    assert list(found(check([plain(), ROUNDS], model=limits))) == ["mismatch"]


@pytest.mark.parametrize("text", ["I asked. ASSISTANT: I said.", "It ends</s> here."])
def test_llavas_tokenization_mismatch_is_an_error(check, limits, text, capsys):
    findings = check([plain(), plain(answer=text)], model=limits)
    assert list(found(findings)) == ["mismatch"]
    assert findings.examples["mismatch"] == [("record 1 (id plain)", findings.examples["mismatch"][0][1])]
    assert "tokenization mismatch" in found(findings)["mismatch"][0]
    assert "mismatch" not in capsys.readouterr().out


def test_labels_beside_the_answer_are_an_error(check, limits, monkeypatch):
    """As from a mask that is off by two tokens."""
    from llava_aurora.data.validation import labels as validation_labels

    original = validation_labels.upstream.preprocess

    def shifted(*arguments, **options):
        item = original(*arguments, **options)
        labels, learned = item["labels"], (item["labels"] != -100).nonzero()
        labels[0, learned[0, 1] : learned[0, 1] + 2] = -100
        return item

    monkeypatch.setattr(validation_labels.upstream, "preprocess", shifted)
    findings = check([plain(answer="The lamp stands on the table.")], model=limits)
    assert list(found(findings)) == ["labels"]
    assert "answer 1 is 'The lamp stands on the table.', but its labels are" in found(findings)["labels"][0]


def test_a_record_that_would_be_cut_off_is_found(check, workshop):
    long = plain(answer="word " * 300)
    assert list(found(check([plain(), long], model=model_limits(workshop.base, depth=DEPTH, frame=FRAME)))) == [
        "truncated"
    ]
    shorter = model_limits(workshop.base, depth=DEPTH, frame=FRAME, max_length=20)
    assert check([plain()], model=shorter).numbers == {"truncated": 1}


def test_a_length_counts_what_the_language_model_sees(check, limits, workshop):
    """16 image tokens in place of one, and all tokens of a map."""
    assert limits.image_tokens == 16
    (short,), (long,) = (check([plain(answer=text)], model=limits).lengths for text in ("x", f"x{MAP}"))
    assert long - short == CELLS + 2
    tokenizer = load_tokenizer(workshop.base)
    no_image = {"id": "t", "conversations": plain("How?", "x")["conversations"]}
    (without,) = check([no_image], model=limits).lengths
    prompt = "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful,"
    prompt += " detailed, and polite answers to the user's questions. USER: How? ASSISTANT: x</s>"
    assert without == len(tokenizer(prompt).input_ids)
    assert short > without + 16


@pytest.mark.parametrize("legacy", [True, False])
def test_the_quick_tokenizer_gives_the_tokenizers_ids(workshop, legacy):
    tokenizer = AutoTokenizer.from_pretrained(workshop.base, use_fast=False, legacy=legacy)
    quick = SpanTokenizer(tokenizer, PerceptionVocabulary((DEPTH, PIXELS)))
    texts = [turn["value"] for record in json.loads(workshop.records.read_text()) for turn in record["conversations"]]
    odd = ["", " ", "</s>", " </s>", "\n</s>", "x</s>y</s>", "</s></s>"]
    odd += [DEPTH.start, MAP + DEPTH.start, DEPTH.end + MAP, MAP * 2, f" {MAP} ", f"a{MAP}b</s>", f"{MAP} </s>"]
    odd += [MAP.replace("><", "> <"), MAP.replace("<DEPTH_3>", "")]
    for text in [*texts, *odd]:
        for each in (text, f"{text}</s>", f"{text} ASSISTANT: "):
            assert quick(each).input_ids == tokenizer(each).input_ids, each


def test_a_trained_model_says_its_tokens_itself(finetuned, check, tmp_path):
    folder, _ = finetuned
    limits = model_limits(folder)
    assert [(family.name, family.size) for family in limits.families] == [("DEPTH", CODES), ("PIXEL", FRAME)]
    assert (limits.frame, limits.image_tokens, limits.max_length) == (FRAME, 16, 512)
    with pytest.raises(AuroraError, match="was trained with other depth tokens than 128 codes in maps of 100"):
        model_limits(folder, depth=depth_family())


# --- images -----------------------------------------------------------------------------------------------------------


def about(*names):
    return [plain(image=name) for name in names]


@pytest.mark.parametrize(
    ("kind", "content", "message"),
    [
        ("image", None, "bad.png: no such image"),
        ("image", b"no picture", "damaged, or of none of the formats"),
        ("image", "cut", "truncated"),
        ("bomb", "large", "97 × 97 pixels are too many"),
        ("blank", "white", "every pixel has brightness 255"),
    ],
)
def test_a_bad_image_is_found_once(check, images, monkeypatch, kind, content, message):
    path = images / "bad.png"
    if content == "cut":
        path.write_bytes((images / "a.png").read_bytes()[:-40])
    elif content == "large":
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 96 * 96 + 1)
        save(path, np.zeros((97, 97, 3), dtype=np.uint8))
    elif content == "white":
        save(path, np.full((50, 50, 3), 255, dtype=np.uint8))
    elif content is not None:
        path.write_bytes(content)
    findings = check(about("a.png", "bad.png", "bad.png"), image_folder=images)
    assert findings.numbers == {kind: 1}
    assert findings.examples[kind][0][0] == "record 1 (id plain)"
    assert message in findings.examples[kind][0][1]
    assert findings.images == 2


def test_unusual_images_are_named(check, images):
    """Each is trained on, as the documentation says, and each is a warning."""
    picture = Image.fromarray(blocks(np.random.default_rng(7)))
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.save(images / "turned.jpg", exif=exif)
    picture.resize((90, 3)).save(images / "line.png")
    Image.fromarray(np.asarray(picture.convert("L")).astype(np.uint16) * 257).save(images / "deep.png")
    for name, alpha in {"cut.png": 0, "opaque.png": 255}.items():
        shown = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        shown.putalpha(Image.new("L", picture.size, 255))
        shown.putpixel((0, 0), (0, 0, 0, alpha))
        shown.rotate(90 * (alpha > 0)).save(images / name)
    names = ("turned.jpg", "line.png", "deep.png", "cut.png", "opaque.png")
    found = check(about(*names), image_folder=images)
    kinds = {"turned.jpg": "orientation", "line.png": "tiny", "deep.png": "deep", "cut.png": "transparent"}
    del found.numbers["duplicate"]
    assert found.numbers == dict.fromkeys(kinds.values(), 1)
    for name, kind in kinds.items():
        assert name in found.examples[kind][0][1]
        assert KINDS[kind].severity == "warning"


def test_a_cut_jpeg_is_found_although_it_is_decoded_small(check, images):
    Image.fromarray(blocks(np.random.default_rng(5))).resize((900, 900)).save(images / "bad.jpg")
    whole = (images / "bad.jpg").read_bytes()
    assert check(about("bad.jpg"), image_folder=images).numbers == {}
    (images / "bad.jpg").write_bytes(whole[: len(whole) // 2])
    assert check(about("bad.jpg"), image_folder=images).numbers == {"image": 1}


def test_quick_reads_headers_alone(check, images):
    (images / "cut.png").write_bytes((images / "a.png").read_bytes()[:-40])
    assert check(about("cut.png"), image_folder=images, quick=True).numbers == {}
    (images / "cut.png").write_bytes(b"no picture")
    assert check(about("cut.png"), image_folder=images, quick=True).numbers == {"image": 1}


def test_the_same_picture_under_two_names_is_a_warning(check, images):
    Image.open(images / "b.png").resize((200, 150)).save(images / "again.jpg", quality=60)
    findings = check(about("a.png", "b.png", "c.png", "again.jpg"), image_folder=images)
    assert findings.numbers == {"duplicate": 1}
    assert findings.examples["duplicate"] == [("again.jpg", "shows the same as b.png")]


def test_a_marked_copy_is_no_duplicate_of_its_image_and_stands_for_it_where_that_is_not_used(check, images):
    for name in ("marked.png", "other.png"):
        Image.open(images / "b.png").save(images / name)
    (copy,), (other,), (plain,) = (about(name) for name in ("marked.png", "other.png", "b.png"))
    copy["aurora"] = {"unmarked": "b.png"}
    assert check([copy, plain], image_folder=images).numbers == {}
    assert check([copy, plain, other], image_folder=images).numbers == {"duplicate": 1}
    assert check([copy, other], image_folder=images).numbers == {"duplicate": 1}


def test_a_training_image_of_the_evaluation_is_an_error(check, images, tmp_path):
    other = tmp_path / "held_out"
    other.mkdir()
    Image.open(images / "b.png").resize((200, 150)).save(other / "1.jpg", quality=60)
    held_out = tmp_path / "questions.jsonl"
    held_out.write_text(json.dumps({"question_id": 1, "image": "1.jpg", "text": "?"}) + "\n")
    settings = {"image_folder": images, "eval_data": held_out, "eval_image_folder": other}
    findings = check(about("a.png", "b.png"), **settings)
    assert found(findings) == {"leak": ["shows the same as 1.jpg of the evaluation"]}
    held_out.write_text(json.dumps({"question_id": 1, "image": "a.png", "text": "?"}) + "\n")
    findings = check(about("a.png", "b.png"), **{**settings, "eval_image_folder": None})
    assert found(findings) == {"leak": ["is an image of the evaluation"]}


# --- the report and the command ---------------------------------------------------------------------------------------


def test_processes_find_the_same_as_one(tmp_path, examples, images, monkeypatch):
    monkeypatch.setattr(validation, "BYTES_WORTH_A_PROCESS", 1)
    monkeypatch.setattr(validation, "RECORDS_AT_ONCE", 3)
    monkeypatch.setattr(validation, "IMAGES_AT_ONCE", 1)
    path = tmp_path / "train.json"
    path.write_text(
        json.dumps([*examples.values(), *about("a.png", "gone.png", "b.png", "../x"), plain(answer=MAP[:-3])])
    )
    one, two = (
        check_file(path, CheckSettings(families=(DEPTH, PIXELS), frame=FRAME, image_folder=images, workers=workers))
        for workers in (1, 2)
    )
    assert one.as_dict() == two.as_dict()
    assert one.findings.numbers == {"spans": 1, "image": 1, "path": 1}


def test_a_folder_of_parts_is_read_and_its_parts_are_named(tmp_path):
    folder = tmp_path / "parts"
    folder.mkdir()
    for number, records in enumerate(([plain()], [plain(), plain(answer=MAP[:-3])])):
        (folder / f"{number}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    findings = check_file(folder, CheckSettings(families=(DEPTH, PIXELS), frame=FRAME)).findings
    assert findings.records == 3
    assert [where for where, _ in findings.examples["spans"]] == ["1.jsonl: record 1 (id plain)"]


def test_a_record_that_cannot_be_read_or_checked_is_named_and_the_others_are_checked(tmp_path, limits, monkeypatch):
    path = tmp_path / "train.jsonl"
    lines = [json.dumps(plain(id=name)) for name in ("a", "crash", "b\u2028c")]
    path.write_text("\n".join([*lines, "{", "[" * 100_000, json.dumps(plain(answer=MAP[:-3]))]))
    run = LabelChecks.run

    def crash(self, record, report):
        return 1 / 0 if record["id"] == "crash" else run(self, record, report)

    monkeypatch.setattr(LabelChecks, "run", crash)
    findings = check_file(path, CheckSettings(families=(DEPTH, PIXELS), frame=FRAME, model=limits)).findings
    assert (findings.records, findings.numbers) == (6, {"format": 3, "spans": 1})
    named = dict(findings.examples["format"])
    assert list(named) == ["record 1 (id crash)", "record 3", "record 4"]
    assert "line 4" in named["record 3"]


def test_spans_are_those_that_the_tokenizer_makes(check, limits, monkeypatch):
    spaced = plain(answer=MAP.replace("><", ">\n <"))
    assert found(check([spaced, plain(answer=MAP)], model=limits)) == {}
    monkeypatch.setattr(validation, "as_trained", lambda record, families: record)
    assert list(found(check([plain(answer=MAP), spaced], model=limits))) == ["spans"]


def test_without_a_model_maps_are_as_long_as_the_first(tmp_path):
    path = tmp_path / "train.json"
    maps = [
        plain(answer=depth_family(codebook_size=512, codes_per_map=4).text(codes)) for codes in ([400] * 4, [1] * 4)
    ]
    path.write_text(json.dumps([plain(), *maps]))
    report = check_file(path, CheckSettings())
    assert report.findings.numbers == {}
    assert any("4 codes a map" in each and "--depth-vqvae" in each for each in report.unchecked)
    path.write_text(json.dumps([*maps, plain(answer=MAP)]))
    assert check_file(path, CheckSettings()).findings.numbers == {"spans": 1}


def test_examples_are_bounded_and_numbers_are_not():
    findings, other = Findings(), Findings()
    for index in range(30):
        findings.add("format", f"record {index}", "x" * 10_000)
        other.add("format", f"record {30 + index}", "y")
    findings.merge(other)
    assert findings.numbers["format"] == 60
    assert [where for where, _ in findings.examples["format"]] == [f"record {index}" for index in range(10)]
    assert len(findings.examples["format"][0][1]) < 1000
    with pytest.raises(KeyError):
        findings.add("no such kind", "", "")


@pytest.fixture
def command(tmp_path, images):
    def run(records, *options):
        path = tmp_path / "train.json"
        path.write_text(json.dumps(records))
        arguments = ["data", "check", path, "--image-folder", images, "--frame", FRAME, "--workers", 1]
        return llava_aurora(*arguments, *options)

    return run


def test_a_sound_file_ends_in_fine_and_exit_code_0(command, workshop, examples, tmp_path):
    out = tmp_path / "report"
    options = "--model", workshop.base, "--depth-vqvae", workshop.vqvae, "--out", out
    result = command(list(examples.values()), *options)
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[-1] == "fine: 15 records, 1 images: 0 errors, 0 warnings"
    report = json.loads((out / "report.json").read_text())
    assert (report["errors"], report["length_unit"], sum(report["lengths"].values())) == (0, "tokens", 15)
    for name in ("lengths.png", "counts.png"):
        with Image.open(out / name) as picture:
            assert picture.width > 400


def test_problems_end_in_a_table_and_exit_code_1(command):
    bad = [plain(), plain(image="gone[b].png"), *[plain(id=f"x{n}", answer=MAP[:-3]) for n in range(9)]]
    result = command(bad, "--examples", 2)
    assert result.exit_code == 1
    assert result.stdout.splitlines()[-1].startswith(
        "PROBLEMS: 11 records, 2 images: 10 errors, 0 warnings (image, spans)"
    )
    for part in ("gone[b].png", "record 2 (id x0)", "record 3 (id x1)", "not checked: labels"):
        assert part in result.stdout
    assert "record 4 (id x2)" not in result.stdout


def test_a_warning_fails_under_strict_alone(command, images):
    save(images / "white.png", np.full((50, 50, 3), 255, dtype=np.uint8))
    assert command(about("white.png")).exit_code == 0
    assert command(about("white.png"), "--strict").exit_code == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--image-folder", "nowhere"], "--image-folder nowhere: no such folder"),
        (["--model", "nowhere"], "nowhere/config.json: cannot read"),
        (["--eval-data", "nowhere.json"], "nowhere.json"),
    ],
)
def test_what_is_missing_is_named(command, options, message):
    result = command(about("a.png"), *options)
    assert isinstance(result.exception, AuroraError)
    assert message in str(result.exception)
