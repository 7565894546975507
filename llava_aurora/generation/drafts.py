"""Drafts of the next tokens, made without the model: from the wording of chains and from earlier answers.

A guess costs nothing where it is wrong, as the model checks it, and saves a forward pass for each of its tokens where
it is right. All codes of a family count as the same word, and so do all digits. A guess goes on behind the coordinates
of a point or box, and behind a value, with some code or digit in their place: what the model then says there and behind
is the better guess. It ends where a map begins.
"""

from collections.abc import Collection, Iterable, Sequence
from typing import Any

from llava_aurora.tasks.forms import example
from llava_aurora.tasks.prompts import Prompts
from llava_aurora.tasks.registry import family_of, tasks
from llava_aurora.tokens.perception import PerceptionTokens
from llava_aurora.tokens.vocabulary import by_kind

LONGEST = 6  # tokens that are compared
LIMIT = 100_000  # places remembered; beyond that it starts anew


class Phrases:
    """Remembers texts and says how one goes on.

    Args:
        codes: ids that count as the same word, for each such word: the codes of a family that stand one by one, digits.
        maps: the same of codes that fill whole spans; all codes of a span together count as one word.
    """

    def __init__(self, codes: Iterable[Collection[int]] = (), *, maps: Iterable[Collection[int]] = ()) -> None:
        self.codes, self.maps = tuple(codes), tuple(maps)
        self._stand_ins = [sorted(each)[len(each) // 2] for each in self.codes]
        self._continuations: dict[tuple[int, ...], tuple[int, ...]] = {}

    def remember(self, ids: Sequence[int]) -> None:
        """Takes in a text; where the same words went on in another way before, the later counts."""
        words = self._words(ids)
        if len(self._continuations) > LIMIT:
            self._continuations.clear()
        found: dict[tuple[int, ...], tuple[int, ...]] = {}
        stop = len(words)
        for place in range(len(words) - 1, 0, -1):
            if words[place] < -len(self.codes):
                stop = place
                continue
            following = tuple(word if word >= 0 else self._stand_ins[-word - 1] for word in words[place:stop])
            for length in range(1, min(LONGEST, place) + 1):
                found.setdefault(tuple(words[place - length : place]), following)
        self._continuations |= found

    def following(self, ids: Sequence[int], *, least: int = 1) -> tuple[int, ...]:
        """How the text that agrees with the end of `ids` in most tokens went on, up to the codes of its next map.

        Args: ids: all that stands there.
        """
        words = self._words(ids[-self._reach :])
        for length in range(min(LONGEST, len(words)), least - 1, -1):
            found = self._continuations.get(tuple(words[-length:]))
            if found is not None:
                return found
        return ()

    # A run of codes (a map) is one word, so this many ids hold the words that are compared.
    _reach = 200

    def _words(self, ids: Sequence[int]) -> list[int]:
        words: list[int] = []
        for token_id in ids:
            families = enumerate((*self.codes, *self.maps), start=1)
            word = next((-number for number, codes in families if token_id in codes), token_id)
            if word >= -len(self.codes) or not words or words[-1] != word:
                words.append(word)
        return words


def wording_of(prompts: Prompts, *, tokenizer: Any, perception: PerceptionTokens) -> Phrases:
    """The phrases of the answers that are written with these prompts, every variant of them."""
    families = perception.vocabulary.families
    codes: dict[bool, list[range]] = {True: [], False: []}
    for family in families:
        first = perception.ids.first_code_id(family)
        codes[family.delimited].append(range(first, first + family.size))
    digits = set(tokenizer.convert_tokens_to_ids(list("0123456789"))) - {None, tokenizer.unk_token_id}
    phrases = Phrases([*codes[False], *filter(None, [digits])], maps=codes[True])
    for task in tasks().values():
        fields = {name: example(form, by_kind(families)) for name, form in family_of(task).fields.items()}
        for template in prompts.answers(task, values=bool(perception.values)):
            ids = tokenizer(template.format(**fields), add_special_tokens=False).input_ids
            phrases.remember([*ids, tokenizer.eos_token_id])
    return phrases
