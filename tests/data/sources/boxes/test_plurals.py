"""The names of LVIS and COCO in questions."""

import pytest

from llava_aurora.data.sources.boxes.plurals import IRREGULAR, PIECES, PLAIN, PLURALS, PORTIONS, has_letters, names_of
from llava_aurora.errors import AuroraError


@pytest.mark.parametrize(
    ("category", "singular", "plural"),
    [
        # regular, and the irregular ones that inflect knows
        ("cup", "cup", "cups"),
        ("knife", "knife", "knives"),
        ("steak_knife", "steak knife", "steak knives"),
        ("person", "person", "people"),
        ("snowman", "snowman", "snowmen"),
        ("wolf", "wolf", "wolves"),
        ("scarf", "scarf", "scarves"),
        ("bookshelf", "bookshelf", "bookshelves"),
        ("calf", "calf", "calves"),
        ("goose", "goose", "geese"),
        ("die", "die", "dice"),
        ("butterfly", "butterfly", "butterflies"),
        ("Bible", "Bible", "Bibles"),
        ("camera_lens", "camera lens", "camera lenses"),
        ("compass", "compass", "compasses"),
        ("walrus", "walrus", "walruses"),
        ("potato", "potato", "potatoes"),
        ("mashed_potato", "mashed potato", "mashed potatoes"),
        ("piano", "piano", "pianos"),
        ("ax", "ax", "axes"),
        ("toothbrush", "toothbrush", "toothbrushes"),
        ("chaise_longue", "chaise longue", "chaise longues"),
        # the same in the plural
        ("sheep", "sheep", "sheep"),
        ("black_sheep", "black sheep", "black sheep"),
        ("fish", "fish", "fish"),
        ("starfish", "starfish", "starfish"),
        ("deer", "deer", "deer"),
        ("squid_(food)", "squid (food)", "squid (food)"),
        # plural already
        ("trousers", "trousers", "trousers"),
        ("scissors", "scissors", "scissors"),
        ("sunglasses", "sunglasses", "sunglasses"),
        ("binoculars", "binoculars", "binoculars"),
        ("short_pants", "short pants", "short pants"),
        ("brussels_sprouts", "brussels sprouts", "brussels sprouts"),
        ("clippers_(for_plants)", "clippers (for plants)", "clippers (for plants)"),
        ("pajamas", "pajamas", "pajamas"),
        ("pliers", "pliers", "pliers"),
        ("skis", "skis", "skis"),
        ("jean", "jean", "jeans"),
        ("cars", "cars", "cars"),
        ("people", "people", "people"),
        ("traffic lights", "traffic lights", "traffic lights"),
        ("Salespeople", "Salespeople", "Salespeople"),
        ("pairs_of_skis", "pairs of skis", "pairs of skis"),
        ("policemen", "policemen", "policemen"),
        ("cattle", "cattle", "cattle"),
        # singular, though they end in s or men
        ("specimen", "specimen", "specimens"),
        ("gas", "gas", "gases"),
        ("lens", "lens", "lenses"),
        ("octopus", "octopus", "octopuses"),
        ("bus", "bus", "buses"),
        # abbreviations, capitals, digits, other scripts
        ("RBC", "RBC", "RBCs"),
        ("VIP car", "VIP car", "VIP cars"),
        ("parked SUV", "parked SUV", "parked SUVs"),
        ("PERSON", "PERSON", "PEOPLE"),
        ("TRAFFIC LIGHT", "TRAFFIC LIGHT", "TRAFFIC LIGHTS"),
        ("car_1", "car 1", "car 1s"),
        ("mp3 player", "mp3 player", "mp3 players"),
        ("C++", "C++", "C++"),
        ("汽车", "汽车", "汽车"),
        ("автомобиль", "автомобиль", "автомобиль"),
        ("Lkw_groß", "Lkw groß", "Lkw groß"),
        # several words
        ("person without helmet", "person without helmet", "people without helmet"),
        ("wineglass", "wineglass", "wineglasses"),
        ("clothes_hamper", "clothes hamper", "clothes hampers"),
        ("bow-tie", "bow-tie", "bow-ties"),
        ("table-tennis_table", "table-tennis table", "table-tennis tables"),
        ("pair_of_skis", "pair of skis", "pairs of skis"),
        ("pair_of_scissors", "pair of scissors", "pairs of scissors"),
        ("loaf_of_bread", "loaf of bread", "loaves of bread"),
        ("hot dog", "hot dog", "hot dogs"),
        # explained in brackets
        ("bow_(weapon)", "bow (weapon)", "bows (weapon)"),
        ("bow_(decorative_ribbons)", "bow (decorative ribbons)", "bows (decorative ribbons)"),
        ("fish_(food)", "fish (food)", "fish (food)"),
        ("mouse_(computer_equipment)", "mouse (computer equipment)", "mice (computer equipment)"),
        ("glass_(drink_container)", "glass (drink container)", "glasses (drink container)"),
        ("patty_(food)", "patty (food)", "patties (food)"),
        (
            "passenger_car_(part_of_a_train)",
            "passenger car (part of a train)",
            "passenger cars (part of a train)",
        ),
        (
            "monitor_(computer_equipment) computer_monitor",
            "monitor (computer equipment)",
            "monitors (computer equipment)",
        ),
        ("car_(automobile)", "car", "cars"),
        ("bus_(vehicle)", "bus", "buses"),
        ("tights_(clothing)", "tights", "tights"),
        # what inflect gets wrong
        ("banjo", "banjo", "banjos"),
        ("Lego", "Lego", "Legos"),
        ("chili_(vegetable)", "chili (vegetable)", "chilies (vegetable)"),
        ("tv", "tv", "TVs"),
        # matter
        ("broccoli", "broccoli", "pieces of broccoli"),
        ("chain_mail", "chain mail", "pieces of chain mail"),
        ("toast_(food)", "toast (food)", "pieces of toast (food)"),
        ("orange_juice", "orange juice", "portions of orange juice"),
        ("peanut_butter", "peanut butter", "portions of peanut butter"),
        ("garbage_truck", "garbage truck", "garbage trucks"),
        ("milkshake", "milkshake", "milkshakes"),
    ],
)
def test_names(category, singular, plural):
    assert names_of(category) == (singular, plural)


def test_a_word_stands_in_one_table_only():
    tables = [PLURALS, frozenset(IRREGULAR), PIECES, PORTIONS]
    assert sum(map(len, tables)) == len(frozenset().union(*tables))
    assert all(word == word.lower() for table in [*tables, PLAIN] for word in table)


@pytest.mark.parametrize("name", ["", "  ", "_", "()", "(food)", "12"])
def test_what_is_no_name_is_refused(name):
    assert not has_letters(name)
    with pytest.raises(AuroraError, match="without letters"):
        names_of(name)
