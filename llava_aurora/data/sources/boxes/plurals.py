"""Names of annotated categories in questions, singular and plural: "bow_(weapon)" -> "bow (weapon)", "bows (weapon)".

Plurals are formed by `inflect`. The tables below hold the words of LVIS, COCO and similar files that it gets wrong, and
uncountable nouns, which are counted in pieces, portions or instances.
"""

import re
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from llava_aurora.errors import AuroraError

if TYPE_CHECKING:
    import inflect


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Words whose explanation in LVIS is left out. Others keep theirs: since there is "baseball_bat" too, a question about
# "bat_(animal)" has to name the animal.
PLAIN = _words(
    "bus car cab crab legging mailbox orange overalls pita sandal slipper stapler statue tights tractor train"
)

# Plurals besides those in men, people, children and in s; but for words in is and us, which are singulars.
PLURALS = _words(
    "algae bacteria bikinis cacti cattle criteria data dice emus feet fungi geese kiwis larvae media menus mice nuclei "
    "oxen paparazzi phenomena police skis swine taxis teeth"
)
SINGULARS = _words(
    "abdomen asbestos atlas bias canvas christmas cosmos gas lens omen pancreas ramen rhinoceros semen specimen stamen "
    "thermos"
)

IRREGULAR = {
    "banjo": "banjos",
    "bison": "bison",
    "burrito": "burritos",
    "chili": "chilies",
    "elk": "elk",
    "flamingo": "flamingos",
    "lego": "Legos",
    "shrimp": "shrimp",
    "squid": "squid",
    "tv": "TVs",
}

PIECES = _words(
    "advice apparel armor artwork asparagus attire bacon baggage bait bamboo bedding beef bread broccoli cash "
    "cauliflower celery chain-mail cheese clothing cornbread crabmeat crockery cutlery debris equipment evidence "
    "flannel fleece floss fudge furniture garbage garlic ginger graffiti ham homework hosiery information jewelry "
    "leather lettuce lingerie litter luggage machinery mail meat money news parchment pork pottery poultry rubbish "
    "salami seafood seaweed stationery sugarcane sushi tartan thread tinfoil tinsel toast tofu trash"
)

PORTIONS = _words(
    "alcohol applesauce balm batter butter cayenne chocolate cider cocoa coleslaw cornmeal cream curd detergent flour "
    "gargle gelatin hay honey hummus icecream jam juice ketchup lemonade liquor macaroni mayonnaise medicine milk "
    "mousse mud mustard oil pasta popcorn pudding rice salsa sand sauce sherbert snow soap spaghetti sugar tequila "
    "toothpaste vinegar vodka water"
)

INSTANCES = _words("fog golf hockey rain rugby smoke tennis traffic vegetation")

_PREPOSITION = re.compile(r" (of|with|without|in|on) ")  # only what stands before takes the plural
_LONGEST_ABBREVIATION = 4  # letters; longer words in capitals are taken for English words
_NAME = re.compile(r"(?P<head>[^(]+?)\s*(?:\((?P<meaning>[^)]*)\).*)?$")


class Names(NamedTuple):
    """One of a kind, and several: "mouse (computer equipment)", "mice (computer equipment)"."""

    singular: str
    plural: str


def has_letters(category: str) -> bool:
    """Whether a category has a name that can be asked about, in any script; "12" and "_" have none."""
    found = _NAME.match(_plain(category))
    return found is not None and any(letter.isalpha() for letter in found["head"])


@lru_cache(maxsize=4096)
def names_of(category: str) -> Names:
    """How a question names a category.

    Underscores become blanks; LVIS's explanation in brackets stays, except with the words in PLAIN. A name that is
    plural already or has letters other than English ones is also its own plural.

    Args: category: its name in an annotation file, such as "cup", "bow_(weapon)", "pair_of_skis".
    Raises AuroraError for a name without a letter.
    """
    found = _NAME.match(_plain(category))
    if not found or not has_letters(category):
        raise AuroraError(f"category {category!r}: a name without letters cannot be asked about")
    head, meaning = found["head"], found["meaning"]
    explained = f" ({meaning})" if meaning and head.lower() not in PLAIN else ""
    return Names(head + explained, _plural(head) + explained)


def _plain(category: str) -> str:
    return " ".join(category.replace("_", " ").split())


def _plural(head: str) -> str:
    """The plural of "cup", "steak knife", "pair of skis", "RBC", "car 1", "people"."""
    preposition = _PREPOSITION.search(head)
    first, rest = (head[: preposition.start()], head[preposition.start() :]) if preposition else (head, "")
    start, last = re.fullmatch(r"(.*?)([^ -]*)", first).groups()  # type: ignore[union-attr]
    word = last.lower()
    if word in PIECES or first.replace(" ", "-").lower() in PIECES or word.endswith(("ware", "wear")):
        return f"pieces of {head}"
    if word in PORTIONS:
        return f"portions of {head}"
    if word in INSTANCES:
        return f"instances of {head}"
    if not head.isascii() or not last[-1:].isalnum() or _is_plural(word):
        return head
    if word in IRREGULAR:
        return start + IRREGULAR[word] + rest
    if last[-1].isdigit() or (last.isupper() and 1 < len(last) <= _LONGEST_ABBREVIATION):
        return f"{first}s{rest}"
    plural = str(_engine().plural_noun(start + word if last.isupper() else first))
    return (plural.upper() if first.isupper() else plural) + rest


def _is_plural(word: str) -> bool:
    if word in PLURALS or word in SINGULARS:
        return word in PLURALS
    ends_in_s = word.endswith("s") and len(word) > 3 and not word.endswith(("ss", "is", "us"))
    return ends_in_s or word.endswith(("men", "people", "children"))


@lru_cache(maxsize=1)
def _engine() -> "inflect.engine":
    try:
        import inflect
    except ModuleNotFoundError as error:
        raise AuroraError("plural names need inflect: pip install 'llava-aurora[data]'") from error
    return inflect.engine()
