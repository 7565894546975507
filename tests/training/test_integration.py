"""Where the plugin takes hold of LLaVA, and lets go of it."""

import pytest
from llava.train import train as upstream

from llava_aurora import installation, patch_queue
from llava_aurora.errors import AuroraError
from llava_aurora.training import integration

NAMES = (
    "ModelArguments",
    "DataArguments",
    "TrainingArguments",
    "LlavaLlamaForCausalLM",
    "LLaVATrainer",
    "make_supervised_data_module",
)


@pytest.fixture(autouse=True)
def released():
    integration.unregister()
    yield
    integration.unregister()


def test_names_are_replaced_by_subclasses_and_put_back():
    before = {name: getattr(upstream, name) for name in NAMES}
    integration.register()
    integration.register()
    for name, original in before.items():
        replacement = getattr(upstream, name)
        assert replacement is not original
        if isinstance(original, type):
            assert issubclass(replacement, original)
    integration.unregister()
    assert {name: getattr(upstream, name) for name in NAMES} == before


def test_a_version_that_does_not_fit_is_named_with_both_sides(monkeypatch):
    monkeypatch.setitem(installation.REQUIRED, "transformers", ">=99")
    with pytest.raises(AuroraError, match=r"transformers>=99 is needed, [\d.]+ is installed; run `bash scripts/setup"):
        integration.register()
    monkeypatch.setitem(installation.REQUIRED, "transformers", ">=4")
    monkeypatch.setitem(installation.REQUIRED, "no-such-package", ">=1")
    with pytest.raises(AuroraError, match="none is installed"):
        integration.register()


def test_a_name_that_is_gone_is_refused_and_nothing_is_replaced(monkeypatch):
    original = upstream.ModelArguments
    monkeypatch.delattr(upstream, "LLaVATrainer")
    with pytest.raises(AuroraError, match="has no LLaVATrainer"):
        integration.register()
    assert upstream.ModelArguments is original


def test_a_llava_without_its_patches_is_refused(monkeypatch):
    states = dict.fromkeys(patch_queue.read_series(), patch_queue.State.PENDING)
    monkeypatch.setattr(patch_queue, "status", lambda source: states)
    with pytest.raises(AuroraError, match=r"0001-.* is pending"):
        integration.register()
