"""Ranks on CPUs with a torch that lacks gloo or libuv."""

import os

import pytest
import torch

from llava_aurora import doctor
from llava_aurora.errors import AuroraError
from llava_aurora.training.cpu_ranks import check_torch, has_gloo, has_libuv


@pytest.fixture(autouse=True)
def no_setting(monkeypatch):
    monkeypatch.setenv("USE_LIBUV", "1")


def without_libuv(*args, **kwargs):
    raise RuntimeError("use_libuv was requested but PyTorch was built without libuv support, run with USE_LIBUV=0")


def test_a_torch_with_both_is_left_alone():
    assert has_gloo()
    assert has_libuv()
    check_torch(2)
    assert os.environ["USE_LIBUV"] == "1"


def test_without_libuv_ranks_meet_without_it_and_doctor_says_so(monkeypatch, capsys):
    monkeypatch.setattr(torch.distributed, "TCPStore", without_libuv)
    check_torch(1)
    assert os.environ["USE_LIBUV"] == "1"
    check_torch(2)
    assert os.environ["USE_LIBUV"] == "0"
    assert "USE_LIBUV=0" in doctor._deepspeed()[2]


def test_another_failure_is_no_missing_libuv(monkeypatch):
    def taken(*args, **kwargs):
        raise RuntimeError("address in use")

    monkeypatch.setattr(torch.distributed, "TCPStore", taken)
    with pytest.raises(RuntimeError, match="in use"):
        has_libuv()


def test_without_gloo_one_process_trains_and_several_are_refused_by_cause(monkeypatch):
    monkeypatch.setattr(torch.distributed, "is_gloo_available", lambda: False)
    check_torch(1)
    with pytest.raises(AuroraError, match="without gloo"):
        check_torch(2)
    good, found, why = doctor._deepspeed()
    assert (good, found) == (False, "no gloo")
    assert "without gloo" in why
