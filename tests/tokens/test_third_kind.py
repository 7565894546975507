"""The registry of token kinds; tasks/test_toy_task.py takes a new kind the whole way."""

import pytest
from brightness import Brightness

from llava_aurora.errors import AuroraError
from llava_aurora.tokens import kind_class, register_kind, unregister_kind


@pytest.fixture
def brightness():
    register_kind(Brightness)
    yield Brightness(levels=8)
    unregister_kind("brightness")


def test_the_registry_matches_exactly_and_refuses_duplicates(brightness):
    assert kind_class("brightness") is Brightness
    with pytest.raises(ValueError, match="registered already"):
        register_kind(Brightness)
    with pytest.raises(AuroraError, match="unknown token kind 'bright'; available: box, brightness, color, depth"):
        kind_class("bright")
