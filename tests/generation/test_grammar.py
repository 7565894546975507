"""The grammar says yes and no where the processor does, except for what the module's docstring names."""

import dataclasses
import json
import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

from llava_aurora.data.transforms.values import ValueStep
from llava_aurora.errors import AuroraError
from llava_aurora.export.fast_tokenizer import fast_tokenizer
from llava_aurora.generation.grammar import blank_of, grammar, grammar_of_model
from llava_aurora.generation.grammar_notation import RegularExpression
from llava_aurora.model.constraint import PerceptionLogitsProcessor
from llava_aurora.tasks.prompts import Prompts
from llava_aurora.tasks.records import RecordWriter
from llava_aurora.tokens import TokenKind, build_kinds
from llava_aurora.tokens.box import BoxKind
from llava_aurora.tokens.perception import PerceptionTokens
from llava_aurora.tokens.vocabulary import PerceptionVocabulary, TokenFamily, depth_family, pixel_family

AURORA = PerceptionVocabulary((depth_family(), pixel_family()))
SEQUENCES = 1500


@dataclass(frozen=True)
class Model:
    """The tokens of the tiny model on its tokenizer."""

    tokenizer: object
    perception: PerceptionTokens

    @cached_property
    def processor(self) -> PerceptionLogitsProcessor:
        return PerceptionLogitsProcessor(self.perception)

    @property
    def end(self) -> int:
        return self.tokenizer.eos_token_id

    def text(self, ids: list[int]) -> str:
        """As engines see it: the bytes of one token after the other."""
        pieces = "".join(self.tokenizer.convert_ids_to_tokens(ids)).replace("▁", " ")
        return re.sub("<0x(..)>", lambda byte: chr(int(byte[1], 16)), pieces)

    def grammar(self, **options) -> str:
        vocabulary = self.perception.vocabulary
        return grammar(vocabulary, blank=blank_of(self.tokenizer, vocabulary), **options)


@pytest.fixture(scope="module", params=[True, False], ids=["legacy", "not legacy"])
def model(request, workshop):
    tokenizer = AutoTokenizer.from_pretrained(workshop.base, use_fast=False, legacy=request.param)
    kinds = build_kinds({"depth": {"vqvae": str(workshop.vqvae)}, "box": {"frame": 56}}, workshop.folder)
    return Model(tokenizer, PerceptionTokens.teach(tokenizer, kinds))


@pytest.fixture
def loose(model, monkeypatch):
    """Boxes may be upside down, as the grammar has it. A perception of its own: places and masks are kept with each."""
    monkeypatch.setattr(BoxKind, "allowed_codes", TokenKind.allowed_codes)
    return Model(model.tokenizer, dataclasses.replace(model.perception))


# --- against the processor --------------------------------------------------------------------------------------------


def accepted(model: Model, ids: list[int]) -> bool:
    """Whether the processor lets all of it through, and then the end."""
    processor = model.processor
    neutral = [model.tokenizer.convert_tokens_to_ids("a")] * processor.reach
    padded = neutral + ids
    tails = torch.tensor([padded[place : place + processor.reach] for place in range(len(ids) + 1)])
    ruled_out = processor(tails, torch.zeros(len(tails), len(model.tokenizer))).isinf()
    return not ruled_out[torch.arange(len(tails)), torch.tensor([*ids, model.end])].any()


def sampled(model: Model, *, count: int, seed: int) -> list[list[int]]:
    """Sequences that the processor lets through, of at most 40 tokens, from scores that like perception tokens."""
    generator = torch.Generator().manual_seed(seed)
    processor = model.processor
    scores = torch.full((len(model.tokenizer),), -torch.inf)
    scores[words(model)] = -1.0
    for ids in model.perception.id_ranges().values():
        scores[ids.start : ids.stop] = 0.0
    scores[model.perception.ids.first_ids["DEPTH"]] = 1.0
    scores[list(model.perception.ids.separators["PIXEL"])] = 5.0
    scores[model.end] = 3.0
    written = torch.zeros(count, 0, dtype=torch.long)
    for _ in range(40):
        chosen = torch.multinomial(processor(written, scores.expand(count, -1)).softmax(-1), 1, generator=generator)
        written = torch.cat([written, chosen], dim=1)
    rows = [row[: row.index(model.end)] for row in written.tolist() if model.end in row]
    return [row for row in rows if not spells_a_token(model, row)]


def words(model: Model) -> list[int]:
    """Ids of ordinary pieces, without bytes and without those that are a separator and something more."""
    pieces = model.tokenizer.convert_ids_to_tokens(range(3, model.perception.token_ids().start))
    with_separator = re.compile(r"▁?,.|▁,")
    return [i for i, piece in enumerate(pieces, 3) if not piece.startswith("<0x") and not with_separator.match(piece)]


def spells_a_token(model: Model, ids: list[int]) -> bool:
    tokens = [i for i in ids if i in model.perception.token_ids()]
    return len(re.findall("<(?:DEPTH|PIXEL)_", model.text(ids))) != len(tokens)


def broken(model: Model, ids: list[int], rng: random.Random) -> list[int]:
    """One to three tokens left out, put in, exchanged, or the end cut off."""
    ids, tokens = list(ids), [*model.perception.token_ids(), *model.perception.ids.separators["PIXEL"], *words(model)]
    for _ in range(rng.randint(1, 3)):
        place = rng.randrange(len(ids) + 1)
        kind = rng.choice(["leave out", "put in", "exchange", "swap", "cut off"])
        if kind == "leave out":
            del ids[place : place + 1]
        elif kind == "put in":
            ids.insert(place, rng.choice(tokens))
        elif kind == "exchange":
            ids[place : place + 1] = [rng.choice(tokens)]
        elif kind == "swap":
            ids[place : place + 2] = ids[place : place + 2][::-1]
        else:
            del ids[place:]
    return ids


def cases(model: Model, *, count: int, seed: int) -> list[list[int]]:
    valid = sampled(model, count=count, seed=seed)
    rng = random.Random(seed)
    mutated = [broken(model, ids, rng) for ids in valid]
    return valid + [ids for ids in mutated if not spells_a_token(model, ids)]


def test_thousands_of_sequences_get_the_processors_verdict(loose):
    pattern = re.compile(loose.grammar(notation="regex"))
    verdicts = {True: 0, False: 0}
    for ids in cases(loose, count=SEQUENCES, seed=0):
        verdict = accepted(loose, ids)
        assert bool(pattern.fullmatch(loose.text(ids))) == verdict, loose.text(ids)
        verdicts[verdict] += 1
    assert min(verdicts.values()) > SEQUENCES / 4


def test_looser_is_only_the_order_of_corners(model):
    pattern = re.compile(model.grammar(notation="regex"))
    _, pixels = model.perception.vocabulary.families
    boxes, upside_down = 0, 0
    for ids in sampled(model, count=500, seed=1):
        assert accepted(model, ids)
        assert pattern.fullmatch(model.text(ids))
        spans = [span for span in model.perception.ids.spans(pixels, ids) if len(span.codes) == 4]
        for span in spans:
            boxes += 1
            turned = list(ids)
            places = [i for i in range(span.start, span.end) if model.perception.ids.code(pixels, ids[i]) is not None]
            turned[places[0]], turned[places[2]] = turned[places[2]], turned[places[0]]
            assert pattern.fullmatch(model.text(turned))
            upside_down += not accepted(model, turned)
    assert upside_down == boxes > 20


def test_stricter_is_text_that_reads_like_a_token_or_a_separator(model):
    pattern = re.compile(model.grammar(notation="regex"))
    spelled = model.tokenizer.convert_tokens_to_ids([f"<0x{ord(character):02X}>" for character in "<DEPTH_3>"])
    assert model.text(spelled) == "<DEPTH_3>"
    assert accepted(model, spelled)
    assert not pattern.fullmatch(model.text(spelled))
    first = model.perception.ids.first_ids["PIXEL"]
    separator = list(model.perception.ids.separators["PIXEL"])
    box = [first + 1, *separator, first + 2, *separator, first + 3, *separator, first + 4]
    assert pattern.fullmatch(model.text(box))
    assert not pattern.fullmatch(model.text([*box, *separator]))
    assert not pattern.fullmatch(model.text(box) + model.text(separator) + " as one piece")


# --- by the engines' own libraries ------------------------------------------------------------------------------------


def xgrammar_accepts(text_of_grammar: str, notation: str) -> Callable[[str], bool]:
    xgrammar = pytest.importorskip("xgrammar", reason="xgrammar is not installed (it brings triton)")
    from xgrammar.testing import _is_grammar_accept_string

    read = xgrammar.Grammar.from_regex if notation == "regex" else xgrammar.Grammar.from_ebnf
    compiled = read(text_of_grammar)
    return lambda text: _is_grammar_accept_string(compiled, text)


class Bytes:
    """A tokenizer of llguidance's kind with a token for each byte."""

    eos_token_id, bos_token_id = 256, None
    tokens = (*(bytes([value]) for value in range(256)), b"<end>")
    special_token_ids = (256,)

    def __call__(self, text: bytes | str) -> list[int]:
        return list(text.encode() if isinstance(text, str) else text)


def llguidance_grammar(text_of_grammar: str, notation: str) -> str:
    llguidance = pytest.importorskip("llguidance")
    if notation == "regex":
        return llguidance.grammar_from("regex", text_of_grammar)
    from llguidance.gbnf_to_lark import any_to_lark

    return llguidance.grammar_from("lark", any_to_lark(text_of_grammar))


def llguidance_accepts(text_of_grammar: str, notation: str) -> Callable[[str], bool]:
    compiled = llguidance_grammar(text_of_grammar, notation)
    from llguidance import LLMatcher, LLTokenizer, TokenizerWrapper

    tokenizer = LLTokenizer(TokenizerWrapper(Bytes()))
    assert LLMatcher(tokenizer, compiled).get_error() == ""

    def accepts(text: str) -> bool:
        matcher, content = LLMatcher(tokenizer, compiled), list(text.encode())
        return matcher.try_consume_tokens(content) == len(content) and matcher.is_accepting()

    return accepts


@pytest.mark.parametrize("notation", ["regex", "ebnf"])
@pytest.mark.parametrize("engine", [xgrammar_accepts, llguidance_accepts])
def test_engines_read_both_notations_alike(loose, engine, notation):
    accepts = engine(loose.grammar(notation=notation), notation)
    pattern = re.compile(loose.grammar(notation="regex"))
    for ids in cases(loose, count=80, seed=2):
        text = loose.text(ids)
        assert accepts(text) == bool(pattern.fullmatch(text)), text


@pytest.mark.parametrize("notation", ["regex", "ebnf"])
@pytest.mark.parametrize("engine", [xgrammar_accepts, llguidance_accepts])
def test_engines_read_auroras_own_sizes(engine, notation):
    accepts = engine(grammar(AURORA, notation=notation), notation)
    codes = "".join(f"<DEPTH_{code}>" for code in range(28, 128))
    for text in (
        "",
        f"The depth map is <DEPTH_START>{codes}<DEPTH_END>. The answer is (A).",
        "at\n1. (<PIXEL_0>,<PIXEL_9>,<PIXEL_99>,<PIXEL_335>)\n2. (<PIXEL_100>,<PIXEL_234>,<PIXEL_299>,<PIXEL_300>)\n",
        "Point “A” (<PIXEL_7>,<PIXEL_8>), and 1 < 2, <b>bold</b>, <DEPTH, <<PIX",
    ):
        assert accepts(text), text
    for text in (
        f"<DEPTH_START>{codes}",
        f"<DEPTH_START>{codes}<DEPTH_3><DEPTH_END>",
        f"<DEPTH_START>{codes[: codes.rindex('<')]}<DEPTH_128><DEPTH_END>",
        "(<PIXEL_1>,<PIXEL_336>)",
        "(<PIXEL_1>,<PIXEL_01>)",
        "(<PIXEL_1>)",
        "(<PIXEL_1>,<PIXEL_2>,<PIXEL_3>)",
        "(<PIXEL_1>,<PIXEL_2>,<PIXEL_3>,<PIXEL_4>,<PIXEL_5>)",
        "(<PIXEL_1>,<PIXEL_2><PIXEL_3>,<PIXEL_4>)",
        "a <DEPTH_5> b",
    ):
        assert not accepts(text), text


def test_an_engine_takes_the_tokens_themselves(model):
    """With the tokenizer that `llava-aurora export` writes, and not only their spelling in pieces."""
    xgrammar = pytest.importorskip("xgrammar", reason="xgrammar is not installed (it brings triton)")
    fast = fast_tokenizer(model.tokenizer)
    info = xgrammar.TokenizerInfo.from_huggingface(fast, stop_token_ids=[model.end])
    compiled = xgrammar.GrammarCompiler(info).compile_grammar(
        xgrammar.Grammar.from_ebnf(model.grammar(notation="ebnf"))
    )
    bits = xgrammar.allocate_token_bitmask(1, len(fast))
    for ids in sampled(model, count=60, seed=3):
        matcher = xgrammar.GrammarMatcher(compiled)
        for token_id in [*ids, model.end]:
            matcher.fill_next_token_bitmask(bits)
            assert bits[0, token_id // 32] >> token_id % 32 & 1, model.text(ids)
            assert matcher.accept_token(token_id)


# --- tasks ------------------------------------------------------------------------------------------------------------

ANSWERS = {
    "depth_generation": "The depth map is {map}.",
    "depth_chain": "The marked points are A (<PIXEL_1>,<PIXEL_2>), B (<PIXEL_30>,<PIXEL_40>). The depth map is {map}."
    " The value is highest at B, so it is closest. The answer is (B).",
    "depth_reading": "The depth map is {map}. The points are A (<PIXEL_1>,<PIXEL_2>) 07, B (<PIXEL_30>,<PIXEL_40>) 99.",
    "depth_chain_from_map": "The points are A (<PIXEL_1>,<PIXEL_2>), B (<PIXEL_30>,<PIXEL_40>)."
    " The value is highest at B, so it is closest. The answer is (B).",
    "depth_reading_from_map": "The points are A (<PIXEL_1>,<PIXEL_2>) 07, B (<PIXEL_30>,<PIXEL_40>) 99.",
    "depth_direct": "(C)",
    "point_location": "The marked points are A (<PIXEL_1>,<PIXEL_2>).",
    "counting_chain": "The red cubes are at\n1. (<PIXEL_1>,<PIXEL_2>,<PIXEL_3>,<PIXEL_4>)\n"
    "2. (<PIXEL_5>,<PIXEL_6>,<PIXEL_7>,<PIXEL_8>)\nSo there are 2. The answer is 2.",
    "counting_direct": "10",
}


@pytest.mark.parametrize("task", ANSWERS)
def test_a_task_prescribes_the_answer(task):
    pattern = re.compile(grammar(AURORA, notation="regex", task=task))
    answer = ANSWERS[task].format(map=AURORA.families[0].text(range(100)))
    assert pattern.fullmatch(answer)
    assert pattern.fullmatch(f" {answer}"), "the first word may bring its blank along"
    assert not pattern.fullmatch(f"{answer} And more.")
    for other in ANSWERS.keys() - {task}:
        assert not re.compile(grammar(AURORA, notation="regex", task=other)).fullmatch(answer)


@pytest.mark.parametrize("task", ["depth_chain", "depth_chain_from_coordinates", "depth_chain_from_map"])
def test_where_values_are_taught_a_chain_states_them(task, model):
    """As records are rewritten for training."""
    depth, box = model.perception.kinds["depth"], model.perception.kinds["box"]
    step = ValueStep(depth=depth, frame=box.frame)
    points = {"A": (1, 2), "B": (30, 40)}
    writer = RecordWriter(prompts=Prompts(), families=(depth.family, box.family))
    question, answer = Prompts().fill(
        task,
        np.random.default_rng(0),
        map=depth.family.text(range(9)),
        points=", ".join(f"{letter} {writer.coordinates(place)}" for letter, place in points.items()),
        letters="A or B",
        answer="B",
    )
    turns = [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
    known = {"task": task, "answer": "B", "points": points, "depths": {"A": 18, "B": 250}}
    valued = step({"id": "1", "conversations": turns, "aurora": known})["conversations"][1]["value"]
    assert re.search(r"A \(<PIXEL_1>,<PIXEL_2>\) \d\d, B", valued)
    ids = [model.tokenizer(text, add_special_tokens=False).input_ids for text in (answer, valued)]
    for values in (False, True):
        pattern = re.compile(model.grammar(notation="regex", task=task, values=values))
        assert [bool(pattern.fullmatch(model.text(each))) for each in ids] == [not values, values]


def test_a_task_takes_every_answer_of_its_records(model, workshop):
    for record in json.loads(workshop.records.read_text()):
        task = record["aurora"]["task"].split("_of_none")[0]
        ids = model.tokenizer(record["conversations"][1]["value"], add_special_tokens=False).input_ids
        pattern = re.compile(model.grammar(notation="regex", task=task))
        assert pattern.fullmatch(model.text(ids)), record["id"]


@pytest.mark.parametrize("engine", [xgrammar_accepts, llguidance_accepts])
def test_engines_read_a_tasks_grammar(engine):
    for task, answer in ANSWERS.items():
        answer = answer.format(map=AURORA.families[0].text(range(100)))
        accepts = engine(grammar(AURORA, notation="ebnf", task=task), "ebnf")
        assert accepts(answer)
        assert not accepts(answer.replace("(", "[")) if "(" in answer else not accepts(f"{answer}x")


def test_plain_coordinates_and_another_wording():
    prompts = Prompts({"point_location": {"answers": ("See {points}!",)}})
    vocabulary = PerceptionVocabulary((depth_family(),))
    pattern = re.compile(grammar(vocabulary, notation="regex", task="point_location", prompts=prompts))
    plain = RecordWriter(prompts=prompts, families=()).coordinates((12, 335))
    assert pattern.fullmatch(f"See A {plain}, B {plain}!")
    assert not pattern.fullmatch("See A (12)!")


# --- parts ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("most", [0, 9, 10, 15, 99, 100, 127, 335, 1023])
def test_numbers_go_up_to_the_last_code(most):
    pattern = re.compile(RegularExpression().number(most))
    assert [n for n in range(3000) if pattern.fullmatch(str(n))] == list(range(most + 1))
    assert not pattern.fullmatch("00")


def test_several_families_without_delimiters_stand_side_by_side():
    """The processor keeps each family's groups apart, and lets one family follow on the other."""
    families = (
        TokenFamily("A", 3, (2,), delimited=False),
        TokenFamily("B", 3, (1, 3), delimited=False),
        depth_family(),
    )
    pattern = re.compile(grammar(PerceptionVocabulary(families), notation="regex"))
    for text in ("<A_0>,<A_1>", "<B_0>", "<B_0>,<B_1>,<B_2>", "<A_0>,<A_1><B_0>x<B_1>", "<B_0><A_0>,<A_1><B_0>, "[:-2]):
        assert pattern.fullmatch(text), text
    for text in ("<A_0>", "<B_0>,<B_1>", "<B_0><B_1>", "<A_0>,<A_1>,<B_0>", "<B_0><A_0>"):
        assert not pattern.fullmatch(text), text


def test_errors_name_what_there_is(workshop):
    with pytest.raises(AuroraError, match="unknown notation 'bnf'; available: regex, ebnf"):
        grammar(AURORA, notation="bnf")
    with pytest.raises(AuroraError, match="unknown task 'chain'; available: depth_generation, "):
        grammar(AURORA, notation="regex", task="chain")
    with pytest.raises(AuroraError, match="a depth span in its answer, and the model has none"):
        grammar(PerceptionVocabulary((pixel_family(),)), notation="regex", task="depth_chain")
    with pytest.raises(AuroraError, match="without perception tokens"):
        grammar_of_model(workshop.base, notation="regex")
