"""The registry of auxiliary losses and the flag that names them."""

import pytest

from llava_aurora.errors import AuroraError
from llava_aurora.model.losses.auxiliary import AuxWeight, loss_class, parse_aux_losses, register_loss


def test_losses_are_added_in_one_order_whatever_the_order_of_the_flag():
    expected = {"reconstruction": AuxWeight(1.0, 200), "answer": AuxWeight(0.3), "attention": AuxWeight(0.2)}
    for text in ("reconstruction=1@200,attention=0.2,answer=0.3", " answer=.3, attention=0.2@0 ,reconstruction=1@200"):
        assert list(parse_aux_losses(text).items()) == list(expected.items())
    assert parse_aux_losses("") == parse_aux_losses("answer=0") == {}


MALFORMED = ["answer", "answer=", "answer=x", "answer=1@", "answer=1@x", "answer=1@1.5", "=1", "answer=1;attention=1"]
IMPOSSIBLE = ["answer=-1", "answer=nan", "answer=inf", "answer=1@-1", "answers=1", "answer=1,answer=1"]


@pytest.mark.parametrize("wrong", [*MALFORMED, *IMPOSSIBLE])
def test_what_cannot_be_read_is_refused(wrong):
    with pytest.raises(AuroraError, match="--aux_losses"):
        parse_aux_losses(wrong)


def test_a_name_is_registered_once():
    with pytest.raises(ValueError, match="registered already"):
        register_loss(loss_class("answer"))
