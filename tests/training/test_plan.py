"""The plan of a run: published numbers of weights, the ZeRO paper's bytes, what autograd keeps, and the command."""

import json
import sys
from dataclasses import replace

import pytest
import torch

from llava_aurora.errors import AuroraError
from llava_aurora.model_sizes import SIZES, LlavaSizes, find_sizes
from llava_aurora.training import plan
from llava_aurora.training.plan import Run, Zero, choose, estimate, largest_batch, shipped
from llava_aurora.training.plan_report import flags, print_plan

WAYS = ["no ZeRO", "ZeRO-1", "ZeRO-2", "ZeRO-3", "ZeRO-3 offload"]


def way(name: str, hidden: int = 5120) -> Zero:
    return shipped(hidden)[WAYS.index(name)]


# --- Numbers of weights -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "language"), [("7b", 6_738_415_616), ("13b", 13_015_864_320), ("34b", 34_388_917_248)]
)
def test_published_numbers_of_weights(name, language):
    sizes = SIZES[name]
    assert sizes.weights - sizes.projector - sizes.vision.weights == language
    assert sizes.vision.weights == 303_507_456  # CLIP ViT-L/14 at 336 pixels


def test_a_checkpoint_is_counted_exactly(workshop):
    from safetensors.torch import load_file

    folders = (workshop.base, workshop.base / "vision_tower")
    weights = [weight for folder in folders for weight in load_file(folder / "model.safetensors").values()]
    assert find_sizes(str(workshop.base)).weights == sum(weight.numel() for weight in weights)


def test_lora_has_two_matrices_beside_each_linear_map():
    run = Run(model=SIZES["13b"], mode="lora", lora_r=128, new_tokens=0)
    square, mlp = 4 * (5120 + 5120), 3 * (5120 + 13824)
    assert run.trained - run.model.projector == 40 * 128 * (square + mlp)
    rows = replace(run, new_tokens=466)
    assert rows.trained - run.trained == 2 * 466 * 5120
    whole = replace(rows, whole_vocabulary=True)
    assert whole.trained - run.trained == 2 * 32466 * 5120
    assert whole.trained + whole.frozen == rows.trained + rows.frozen


@pytest.mark.parametrize(
    ("config", "named"),
    [
        (None, "7b, 13b, 34b"),
        ("{", "config.json"),
        ('{"model_type": "bert", "hidden_size": 8}', "model_type 'bert'"),
        ('{"model_type": "llama"}', "hidden_size"),
        ('{"model_type": "llava", "mm_projector_type": "resampler"}', "mm_projector_type 'resampler'"),
        ('{"model_type": "llama", "hidden_size": "wide"}', "hidden_size is 'wide'"),
        ('{"model_type": "llama", "hidden_size": true}', "hidden_size is True"),
        ("[]", "a JSON object"),
        ('{"model_type": "llama", "hidden_size": 1, "mm_vision_tower": "google/siglip"}', "intermediate_size"),
    ],
)
def test_what_cannot_be_planned_is_refused(tmp_path, config, named):
    if config is not None:
        (tmp_path / "config.json").write_text(config)
    with pytest.raises(AuroraError, match=named):
        find_sizes(str(tmp_path))


def test_an_unknown_tower_is_refused(workshop, tmp_path):
    config = json.loads((workshop.base / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "mm_vision_tower": "google/siglip"}))
    with pytest.raises(AuroraError, match="google/siglip"):
        find_sizes(str(tmp_path))


# --- Formulas ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "bytes_a_weight"),
    [("no ZeRO", 16), ("ZeRO-1", 4 + 12 / 64), ("ZeRO-2", 2 + 14 / 64), ("ZeRO-3", 16 / 64)],
)
def test_the_zero_papers_bytes_a_weight(name, bytes_a_weight):
    """Figure 1 of arXiv 1910.02054: 2 + 2 + 12 bytes, divided by 64 ranks from the right."""
    run = Run(model=SIZES["7b"], mode="full", new_tokens=0, gpus=64)
    held = estimate(run, way(name))
    tower = 2 * run.frozen // (64 if name == "ZeRO-3" else 1)
    states = held.parameters + held.gradients + held.optimizer - tower
    assert states == pytest.approx(run.trained * bytes_a_weight, rel=1e-3)


@pytest.mark.parametrize("model", SIZES)
def test_the_zero_papers_communication(model):
    """Sec. 7: twice the weights without ZeRO, three times for ZeRO-3; DeepSpeed's ZeRO-1 and 2 send as much as that."""
    run = Run(model=SIZES[model], mode="full", gpus=512)
    sent = [estimate(run, zero).sent / (2 * run.trained) for zero in shipped(run.model.hidden)]
    assert sent == pytest.approx([2, 3, 3, 3, 3], rel=0.05)
    assert estimate(replace(run, gpus=1), way("ZeRO-3")).sent == 0


@pytest.mark.parametrize("mode", plan.MODES)
def test_more_ranks_never_need_more(mode):
    for zero in shipped(5120):
        peaks = [estimate(Run(model=SIZES["13b"], mode=mode, gpus=gpus), zero).peak for gpus in (1, 2, 8, 64)]
        assert peaks == sorted(peaks, reverse=True)


def test_offloading_moves_bytes_to_the_host():
    run = Run(model=SIZES["13b"], mode="full")
    here, there = estimate(run, way("ZeRO-3")), estimate(run, way("ZeRO-3 offload"))
    assert there.parameters == there.gradients == there.optimizer == here.host == 0
    assert there.host >= here.parameters + here.gradients + here.optimizer


# --- What fits --------------------------------------------------------------------------------------------------------


def test_the_papers_run_fits_on_its_gpus():
    """8 A40 of 48 GB, LoRA of rank 128, 16 records a GPU, ZeRO-3."""
    run = Run(model=SIZES["13b"], mode="lora", whole_vocabulary=True)
    chosen, zero, accumulation = choose(run, memory=48)
    assert (zero.config, chosen.batch, accumulation) == ("deepspeed_configs/zero3.json", 16, 1)
    assert largest_batch(run, way("no ZeRO"), memory=24) == 0


def test_the_largest_batch_is_the_last_that_fits():
    run = Run(model=SIZES["7b"], mode="lora")
    batch = largest_batch(run, way("ZeRO-2", 4096), memory=40)
    peaks = [estimate(replace(run, batch=batch + more), way("ZeRO-2", 4096)).peak for more in (0, 1)]
    assert peaks[0] <= plan.usable(40) < peaks[1]


def test_a_batch_that_does_not_fit_is_accumulated():
    chosen, zero, accumulation = choose(Run(model=SIZES["13b"], mode="full", batch=16), memory=48)
    assert accumulation > 1
    assert chosen.batch * accumulation >= 16
    assert zero.name == "ZeRO-3"


def test_offloading_is_the_last_resort(capsys):
    _, zero, _ = choose(Run(model=SIZES["34b"], mode="full", batch=1), memory=48)
    assert zero.offload
    too_large = Run(model=SIZES["34b"], mode="full", gpus=1)
    assert choose(too_large, memory=6) is None
    print_plan([too_large], memory=6, numbers=[1])
    assert "What helps: more GPUs" in capsys.readouterr().out


def test_quantized_weights_are_not_partitioned():
    run = Run(model=SIZES["13b"], mode="qlora")
    assert largest_batch(run, way("ZeRO-3"), memory=80) == 0
    chosen = choose(run, memory=48)
    assert chosen[1].name == "ZeRO-2"
    assert "--bits 4" in flags(*chosen)


# --- What autograd keeps ----------------------------------------------------------------------------------------------

LLAMA = LlavaSizes(name="", hidden=256, intermediate=704, layers=3, heads=4, kv_heads=4, vocabulary=500)


def saved_bytes(step, *, weights) -> int:
    """Bytes of the distinct tensors that autograd saves in a forward pass, weights left out."""
    own = {weight.untyped_storage().data_ptr() for weight in weights}
    kept: dict[int, torch.Tensor] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in own:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        outcome = step()
    assert outcome.requires_grad
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


def build_llama(run: Run) -> torch.nn.Module:
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaConfig, LlamaModel

    config = LlamaConfig(
        hidden_size=LLAMA.hidden,
        intermediate_size=LLAMA.intermediate,
        num_hidden_layers=LLAMA.layers,
        num_attention_heads=LLAMA.heads,
        vocab_size=LLAMA.vocabulary,
        attn_implementation="sdpa",
    )
    model = LlamaModel(config).to(torch.bfloat16 if run.element == 2 else torch.float32)
    if run.mode == "projector":
        model.requires_grad_(False)
    if run.mode == "lora":
        names = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
        lora = LoraConfig(r=run.lora_r, lora_dropout=0.05, target_modules=names)
        model = get_peft_model(model, lora, autocast_adapter_dtype=False)
    if run.checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": True})  # the Trainer's choice
    return model.train()


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("element", [2, 4])
@pytest.mark.parametrize("mode", ["full", "lora", "projector"])
def test_activations_are_those_that_autograd_keeps(mode, element, checkpointing):
    tokens = 2 * 64
    run = Run(model=LLAMA, mode=mode, lora_r=8, element=element, checkpointing=checkpointing)
    model = build_llama(run)
    inputs = torch.randn(2, 64, LLAMA.hidden, dtype=next(model.parameters()).dtype, requires_grad=True)
    kept = saved_bytes(
        lambda: model(inputs_embeds=inputs, use_cache=False).last_hidden_state, weights=model.parameters()
    )
    layer = element * LLAMA.hidden if checkpointing else plan.layer_bytes(run, mask=element)
    last_norm = LLAMA.hidden * (4 + (element if mode == "full" else 0))
    assert tokens * (LLAMA.layers * layer + last_norm) == pytest.approx(kept, rel=0.03)


# --- The command ------------------------------------------------------------------------------------------------------


def test_the_command_shows_what_fits_without_torch(start):
    code = (
        "import sys; sys.argv[1:] = 'plan --model 13b --gpus 8 --memory 48'.split()\n"
        "try:\n    import llava_aurora.cli.__main__ as c; c.main()\nfinally:\n    print('torch' in sys.modules)"
    )
    run = start(sys.executable, "-c", code)
    for part in (*WAYS, "fits with ZeRO-3, 16 records a GPU", "--lora_alpha 256", "--bits 4"):
        assert part in run.output
    assert run.output.strip().endswith("False")


def test_several_models_and_numbers_of_gpus_as_json(start):
    command = ["llava-aurora", "plan", "--model", "7b,34b", "--gpus", "8,64,512", "--mode", "full", "--json"]
    records = json.loads(start(*command).output)["runs"]
    assert len(records) == 2 * 3 * 5
    found = next(r for r in records if (r["model"], r["way"], r["gpus"]) == ("34b", "ZeRO-2", 8))
    held = estimate(Run(model=SIZES["34b"], mode="full", gpus=8), way("ZeRO-2", 7168))
    assert (found["sent"], found["peak"]) == (held.sent, held.peak)


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("--model", "70b"),
        ("--gpus", "many"),
        ("--gpus", "8,0"),
        ("--answer", "9999"),
    ],
)
def test_an_error_of_the_command_is_one_line(start, flag, value):
    run = start(sys.executable, "-m", "llava_aurora.cli", "plan", flag, value, code=1)
    assert run.output.startswith(f"error: {flag} {value}: ")
