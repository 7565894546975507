"""The answer loss against the logits of the whole model."""

import pytest
import torch
from stated_chain import chain, end_of_chain, labels_of

from llava_aurora.model.losses.auxiliary import AuxWeight
from llava_aurora.model.training_loss import TrainingSettings


def test_it_is_the_mean_loss_of_the_answers_tokens(taught):
    settings = TrainingSettings(aux_losses={"answer": AuxWeight(0.5)})
    tokenizer, model, _ = taught(language_model=True, settings=settings)
    labels = labels_of(tokenizer, chain(chosen="B"), "Nothing to be answered.", end_of_chain(chosen="A"))
    inputs = {
        "inputs_embeds": model.get_input_embeddings()(labels.clamp(min=0)),
        "attention_mask": (labels != -100).long(),
    }
    model(**inputs, labels=labels)
    logits = model.lm_head(model.model(**inputs)[0])
    expected = []
    for row, letter in ((0, "B"), (2, "A")):
        tokens = tokenizer.convert_ids_to_tokens(labels[row].clamp(min=0).tolist())
        said = [position for position, token in enumerate(tokens) if token.strip("▁") in (letter, f"<0x{ord(letter)}>")]
        for position in said[-2:]:
            expected.append(-logits[row, position - 1].log_softmax(-1)[labels[row, position]])
    assert len(expected) == 4
    assert model.training_loss.meter.read()["answer"] == pytest.approx(torch.stack(expected).mean().item(), rel=1e-4)
    model(**{name: value[1:2] for name, value in inputs.items()}, labels=labels[1:2])
    assert "answer" not in model.training_loss.meter.read()
