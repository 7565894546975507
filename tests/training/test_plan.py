"""The memory plan: known numbers of weights, the ZeRO paper's numbers, and what autograd really keeps."""

import json
import sys
from dataclasses import replace

import pytest
import torch

from llava_aurora.errors import AuroraError
from llava_aurora.training import plan
from llava_aurora.training.model_sizes import SIZES, LanguageSizes, Run, count, find_sizes
from llava_aurora.training.plan import Zero, choose, estimate, largest_batch, shipped
from llava_aurora.training.plan_report import print_plan

WAYS = ["no ZeRO", "ZeRO-1", "ZeRO-2", "ZeRO-3", "ZeRO-3 offload"]


def way(name: str, hidden: int = 5120) -> Zero:
    return shipped(hidden)[WAYS.index(name)]


# --- Numbers of weights -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "language"), [("7b", 6_738_415_616), ("13b", 13_015_864_320), ("34b", 34_388_917_248)]
)
def test_published_numbers_of_weights(name, language):
    sizes = SIZES[name]
    assert count(sizes.language.weights()) == language
    assert count(sizes.vision.weights()) == 303_507_456  # CLIP ViT-L/14 at 336 pixels


def test_a_checkpoint_is_counted_exactly(workshop):
    from safetensors import safe_open

    sizes = find_sizes(str(workshop.base))
    shapes: dict[str, tuple[int, ...]] = {}
    for folder in (workshop.base, workshop.base / "vision_tower"):
        with safe_open(folder / "model.safetensors", "pt") as weights:
            shapes |= {name: tuple(weights.get_slice(name).get_shape()) for name in weights.keys()}  # noqa: SIM118
    known = sorted(weight.shape for weight in sizes.weights() for _ in range(weight.copies))
    assert known == sorted(shapes.values())


def test_lora_has_two_matrices_beside_each_linear_map():
    run = Run(model=SIZES["13b"], mode="lora", lora_r=128, new_tokens=0)
    square, mlp = 4 * (5120 + 5120), 3 * (5120 + 13824)
    assert count(run.trained) - count(run.model.projector()) == 40 * 128 * (square + mlp)
    rows = replace(run, new_tokens=466)
    assert count(rows.trained) - count(run.trained) == 2 * 466 * 5120
    whole = replace(rows, whole_vocabulary=True)
    assert count(whole.trained) - count(run.trained) == 2 * 32466 * 5120
    assert count(whole.trained) + count(whole.frozen) == count(run.trained) + count(run.frozen) + 2 * 466 * 5120


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (None, "neither 7b, 13b, 34b nor a folder with a config.json"),
        ("{", "no valid JSON"),
        ('{"mm_vision_tower": "openai/clip-vit-large-patch14"}', "mm_projector_type|has no hidden_size"),
        ('{"mm_projector_type": "resampler"}', "mm_projector_type 'resampler'"),
    ],
)
def test_what_cannot_be_planned_is_refused(tmp_path, files, message):
    if files is not None:
        (tmp_path / "config.json").write_text(files)
    with pytest.raises(AuroraError, match=message):
        find_sizes(str(tmp_path))


def test_an_unknown_tower_is_refused(workshop, tmp_path):
    config = json.loads((workshop.base / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "mm_vision_tower": "google/siglip"}))
    with pytest.raises(AuroraError, match="mm_vision_tower google/siglip is neither"):
        find_sizes(str(tmp_path))


# --- The ZeRO paper ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "bytes_a_weight"),
    [("no ZeRO", 16), ("ZeRO-1", 4 + 12 / 64), ("ZeRO-2", 2 + 14 / 64), ("ZeRO-3", 16 / 64)],
)
def test_the_zero_papers_bytes_a_weight(name, bytes_a_weight):
    """Figure 1 of arXiv 1910.02054: 2 + 2 + 12 bytes, divided by 64 ranks from the right."""
    run = Run(model=SIZES["7b"], mode="full", new_tokens=0, gpus=64)
    zero = replace(way(name), persistence=0, reduce_bucket=0)  # every gradient is larger than the bucket
    held = estimate(run, zero)
    tower = 2 * count(run.frozen) // (64 if zero.stage == 3 else 1)
    weights = count(run.trained)
    assert held.parameters + held.gradients + held.optimizer - tower == pytest.approx(
        weights * bytes_a_weight, rel=1e-2
    )


def test_more_ranks_never_need_more():
    for mode in ("full", "lora", "qlora", "projector"):
        for zero in shipped(5120):
            totals = [estimate(Run(model=SIZES["13b"], mode=mode, gpus=gpus), zero).total for gpus in (1, 2, 8, 64)]
            assert totals == sorted(totals, reverse=True)


def test_offloading_moves_bytes_to_the_host():
    run = Run(model=SIZES["13b"], mode="full")
    here, there = estimate(run, way("ZeRO-3")), estimate(run, way("ZeRO-3 offload"))
    assert there.gradients == there.optimizer == here.host == 0
    assert there.parameters < here.parameters / 100
    assert there.host >= here.parameters + here.gradients + here.optimizer - there.parameters


# --- What fits --------------------------------------------------------------------------------------------------------


def test_the_papers_run_fits_on_its_gpus():
    """8 A40 of 48 GB, LoRA of rank 128, 16 records a GPU, ZeRO-3."""
    run = Run(model=SIZES["13b"], mode="lora", whole_vocabulary=True)
    choice = choose(run, memory=48)
    assert choice is not None
    assert (choice.zero.config, choice.run.batch, choice.accumulation) == ("deepspeed_configs/zero3.json", 16, 1)
    assert largest_batch(run, way("no ZeRO"), memory=24) == 0


def test_the_largest_batch_is_the_last_that_fits():
    run = Run(model=SIZES["7b"], mode="lora")
    batch = largest_batch(run, way("ZeRO-2", 4096), memory=40)
    totals = [estimate(replace(run, batch=batch + more), way("ZeRO-2", 4096)).total for more in (0, 1)]
    assert totals[0] <= plan.usable(40) < totals[1]


def test_a_batch_that_does_not_fit_is_accumulated():
    choice = choose(Run(model=SIZES["13b"], mode="full", batch=16), memory=48)
    assert choice is not None
    assert choice.accumulation > 1
    assert choice.run.batch * choice.accumulation >= 16
    assert choice.zero.name == "ZeRO-3"


def test_offloading_is_the_last_resort_and_nothing_is_said_as_such():
    choice = choose(Run(model=SIZES["34b"], mode="full", batch=1), memory=48)
    assert choice is not None
    assert choice.zero.offload
    assert choose(Run(model=SIZES["34b"], mode="full", gpus=1), memory=6) is None


def test_quantized_weights_are_not_partitioned():
    run = Run(model=SIZES["13b"], mode="qlora")
    assert largest_batch(run, way("ZeRO-3"), memory=80) == 0
    choice = choose(run, memory=48)
    assert choice is not None
    assert choice.zero.name == "ZeRO-2"
    assert "--bits 4" in choice.flags()


# --- What autograd keeps ----------------------------------------------------------------------------------------------

LLAMA = LanguageSizes(hidden=256, intermediate=704, layers=3, heads=4, kv_heads=4, vocabulary=500)


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

    torch.manual_seed(0)
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
    model_sizes = replace(SIZES["7b"], language=LLAMA)
    run = Run(model=model_sizes, mode=mode, lora_r=8, element=element, checkpointing=checkpointing)
    model = build_llama(run)
    inputs = torch.randn(2, 64, LLAMA.hidden, dtype=next(model.parameters()).dtype, requires_grad=True)

    def step() -> torch.Tensor:
        return model(inputs_embeds=inputs, use_cache=False).last_hidden_state

    kept = saved_bytes(step, weights=model.parameters())
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
    assert run.code == 0, run.output
    for part in (
        "13b: 13.35 billion weights",
        *WAYS,
        "fits with ZeRO-3, 16 records a GPU",
        "--lora_alpha 256",
        "--bits 4",
    ):
        assert part in run.output
    assert run.output.strip().endswith("False")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--model", "70b"], "error: --model 70b: neither 7b, 13b, 34b"),
        (["--mode", "prefix"], "error: --mode prefix: there are full, lora, qlora, projector"),
        (["--dtype", "fp16"], "error: --dtype fp16: there are bf16 and fp32"),
    ],
)
def test_an_error_of_the_command_is_one_line(start, flags, message):
    run = start(sys.executable, "-m", "llava_aurora.cli", "plan", *flags)
    assert run.code == 1
    assert run.output.startswith(message)


def test_what_does_not_fit_comes_with_what_helps(capsys):
    print_plan([Run(model=SIZES["34b"], mode="full", gpus=1)], memory=6)
    assert "does not fit with a single record. What helps: more GPUs" in " ".join(capsys.readouterr().out.split())
