"""The names of LVIS and COCO in questions."""

import re

import pytest

from llava_aurora.data.sources.boxes.plurals import (
    INSTANCES,
    IRREGULAR,
    PIECES,
    PLAIN,
    PLURALS,
    PORTIONS,
    has_letters,
    names_of,
)
from llava_aurora.errors import AuroraError

# Categories with their plurals; between them the singular where it is not their own words.
NAMES = """
# regular, and the irregular ones that inflect knows
cup = cups; knife = knives; steak_knife = steak knives; person = people; snowman = snowmen; wolf = wolves; scarf =
scarves; bookshelf = bookshelves; calf = calves; goose = geese; die = dice; butterfly = butterflies; Bible = Bibles;
camera_lens = camera lenses; compass = compasses; walrus = walruses; potato = potatoes; mashed_potato = mashed
potatoes; piano = pianos; ax = axes; toothbrush = toothbrushes; chaise_longue = chaise longues
# the same in the plural
sheep = sheep; black_sheep = black sheep; fish = fish; starfish = starfish; deer = deer; squid_(food) = squid (food)
# plural already
trousers = trousers; scissors = scissors; sunglasses = sunglasses; binoculars = binoculars; short_pants = short pants;
brussels_sprouts = brussels sprouts; clippers_(for_plants) = clippers (for plants); pajamas = pajamas; pliers =
pliers; skis = skis; jean = jeans; cars = cars; people = people; traffic lights = traffic lights; Salespeople =
Salespeople; pairs_of_skis = pairs of skis; policemen = policemen; cattle = cattle; data = data; swine = swine; media
= media
# singular, though they end in s or men
specimen = specimens; gas = gases; lens = lenses; octopus = octopuses; bus = buses
# abbreviations, capitals, digits, other scripts
RBC = RBCs; VIP car = VIP cars; parked SUV = parked SUVs; PERSON = PEOPLE; TRAFFIC LIGHT = TRAFFIC LIGHTS; car_1 = car
1s; mp3 player = mp3 players; C++ = C++; 汽车 = 汽车; автомобиль = автомобиль; Lkw_groß = Lkw groß
# several words
person without helmet = people without helmet; wineglass = wineglasses; clothes_hamper = clothes hampers; bow-tie =
bow-ties; table-tennis_table = table-tennis tables; pair_of_skis = pairs of skis; pair_of_scissors = pairs of
scissors; loaf_of_bread = loaves of bread; hot dog = hot dogs
# explained in brackets
bow_(weapon) = bows (weapon); bow_(decorative_ribbons) = bows (decorative ribbons); fish_(food) = fish (food);
mouse_(computer_equipment) = mice (computer equipment); glass_(drink_container) = glasses (drink container);
patty_(food) = patties (food); passenger_car_(part_of_a_train) = passenger cars (part of a train);
monitor_(computer_equipment) computer_monitor = monitor (computer equipment) = monitors (computer equipment);
car_(automobile) = car = cars; bus_(vehicle) = bus = buses; tights_(clothing) = tights = tights
# what inflect gets wrong
banjo = banjos; Lego = Legos; chili_(vegetable) = chilies (vegetable); tv = TVs
# matter
broccoli = pieces of broccoli; chain_mail = pieces of chain mail; toast_(food) = pieces of toast (food); orange_juice
= portions of orange juice; peanut_butter = portions of peanut butter; garbage_truck = garbage trucks; milkshake =
milkshakes; traffic = instances of traffic; traffic_light = traffic lights; table_tennis = instances of table tennis;
tennis_racket = tennis rackets; swimwear = pieces of swimwear; silverware = pieces of silverware
"""


def listed():
    for entry in re.sub(r"#.*", ";", NAMES).replace("\n", " ").split(";"):
        if entry.strip():
            category, *singular, plural = entry.strip().split(" = ")
            yield category, *(singular or [category.replace("_", " ")]), plural


@pytest.mark.parametrize(("category", "singular", "plural"), listed())
def test_names(category, singular, plural):
    assert names_of(category) == (singular, plural)


def test_a_word_stands_in_one_table_only():
    tables = [PLURALS, frozenset(IRREGULAR), PIECES, PORTIONS, INSTANCES]
    assert sum(map(len, tables)) == len(frozenset().union(*tables))
    assert all(word == word.lower() for table in [*tables, PLAIN] for word in table)


@pytest.mark.parametrize("name", ["", "  ", "_", "()", "(food)", "12"])
def test_what_is_no_name_is_refused(name):
    assert not has_letters(name)
    with pytest.raises(AuroraError, match="without letters"):
        names_of(name)
