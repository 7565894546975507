"""What a category of LVIS or COCO is called in a question: "bow_(weapon)" -> "bow (weapon)", "bows (weapon)".

`inflect` knows the rules of English; the tables below hold the names of LVIS, COCO and their like that it gets wrong:
words that are plural already, and matter that is counted in pieces or portions.
"""

import re
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from llava_aurora.errors import AuroraError

if TYPE_CHECKING:
    import inflect


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Everyday words that need no explanation, though LVIS gives one. Others keep theirs: next to "baseball_bat", a
# question about "bat_(animal)" has to say which bats it means.
PLAIN = _words(
    "bus car cab crab legging mailbox orange overalls pita sandal slipper stapler statue tights tractor train"
)

PLURAL_ALREADY = _words(
    "binoculars clothes goggles grits headphones jeans overalls pants shorts skis spectacles sprouts stairs sunglasses "
    "suspenders tights tongs underdrawers"
)

IRREGULAR = {
    "banjo": "banjos",
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
    "armor asparagus bacon bait bamboo beef bread broccoli cauliflower celery chain-mail cheese chinaware clothing "
    "cornbread crabmeat flannel fleece floss fudge furniture garbage garlic ginger ham jewelry leather lettuce luggage "
    "mail meat money parchment pottery salami silverware sportswear sugarcane sushi tartan thread tinfoil tinsel "
    "toast underwear"
)

PORTIONS = _words(
    "alcohol applesauce balm batter butter cayenne chocolate cider cocoa coleslaw cornmeal cream curd detergent gargle "
    "gelatin hay honey hummus icecream jam juice lemonade liquor medicine milk mousse oil pasta popcorn pudding rice "
    "salsa sauce sherbert soap sugar tequila toothpaste vinegar vodka water"
)

_NAME = re.compile(r"(?P<head>[^(]+?)\s*(?:\((?P<meaning>[^)]*)\).*)?$")


class Names(NamedTuple):
    """One of a kind, and several: "mouse (computer equipment)", "mice (computer equipment)"."""

    singular: str
    plural: str


@lru_cache(maxsize=4096)
def names_of(category: str) -> Names:
    """How a question names a category.

    Underscores become blanks. LVIS's explanation in brackets stays, except with the words in PLAIN.

    Args:
        category: its name in an annotation file, such as "cup", "bow_(weapon)", "pair_of_skis".

    Raises:
        AuroraError: for a name without a letter.
    """
    found = _NAME.match(" ".join(category.replace("_", " ").split()))
    if not found or not any(letter.isalpha() for letter in found["head"]):
        raise AuroraError(f"{category!r} is no name of a category")
    head, meaning = found["head"], found["meaning"]
    explained = f" ({meaning})" if meaning and head.lower() not in PLAIN else ""
    return Names(head + explained, _plural(head) + explained)


def _plural(head: str) -> str:
    """The plural of "cup", "steak knife", "pair of skis"; only the last word before an "of" changes."""
    first, of, rest = head.partition(" of ")
    start, last = re.fullmatch(r"(.*?)([^ -]+)", first).groups()  # type: ignore[union-attr]
    word = last.lower()
    if word in PIECES or first.replace(" ", "-").lower() in PIECES:
        return f"pieces of {head}"
    if word in PORTIONS:
        return f"portions of {head}"
    if word in PLURAL_ALREADY:
        return head
    return (start + IRREGULAR[word] if word in IRREGULAR else str(_engine().plural_noun(first))) + of + rest


@lru_cache(maxsize=1)
def _engine() -> "inflect.engine":
    try:
        import inflect
    except ModuleNotFoundError as error:
        raise AuroraError("plural names need inflect: pip install 'llava-aurora[data]'") from error
    return inflect.engine()
