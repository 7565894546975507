"""Loads a folder by unpatched LLaVA and writes what that makes of it.

    python -I run_upstream.py MODEL EXCHANGE [--attention eager] [--save FOLDER]

Executed by the Python of .venv-upstream, where nothing of this project is installed. EXCHANGE is a folder with
prompts.json, {name: text with <image> where the image goes}, and pixels.safetensors, the image (1, 3, H, W) float32 of
each prompt that has one, by the same name. Added to it are outputs.safetensors, `<name>.ids` (1, L), `<name>.logits`
(1, L with the image in place, V) and `<name>.greedy` (1, N) as generate() returns it; weights.safetensors, all that was
loaded; and report.json.
"""

import argparse
import importlib.util
import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import llava
import torch
from llava.mm_utils import get_model_name_from_path, tokenizer_image_token
from llava.model.builder import load_pretrained_model
from llava.model.language_model.llava_llama import LlavaLlamaForCausalLM
from safetensors.torch import load_file, save_file

NEW_TOKENS = 24


def load(folder: str, **options: Any) -> tuple[Any, LlavaLlamaForCausalLM, Any, int]:
    """Upstream's own loader as it is, then float32.

    The loader always makes the language model half precision, and the vision tower too only if device_map names the
    CPU. Called this way, it rounds every weight once, which the other side can do as well, and float32 after that is
    exact. transformers 4.37 also rounds the cosines and sines of rotary embeddings; they are no weights, and newer
    versions calculate them in float32, so they are calculated again.
    """
    name = get_model_name_from_path(folder)
    tokenizer, model, processor, length = load_pretrained_model(
        folder, None, name, device_map="cpu", device="cpu", **options
    )
    model.float().eval()
    for layer in model.model.layers:
        rotary = layer.self_attn.rotary_emb
        rotary._set_cos_sin_cache(rotary.max_position_embeddings, device="cpu", dtype=torch.float32)
    return tokenizer, model, processor, length


@torch.no_grad()
def answer(
    tokenizer: Any, model: LlavaLlamaForCausalLM, prompt: str, pixels: torch.Tensor | None
) -> dict[str, torch.Tensor]:
    ids = tokenizer_image_token(prompt, tokenizer, return_tensors="pt").unsqueeze(0)
    logits = model(input_ids=ids, attention_mask=torch.ones_like(ids), images=pixels).logits
    greedy = model.generate(ids, images=pixels, do_sample=False, max_new_tokens=NEW_TOKENS)
    return {"ids": ids, "logits": logits, "greedy": greedy}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("exchange", type=Path)
    parser.add_argument("--attention", default="sdpa", help="of the language model; CLIP has only eager here")
    parser.add_argument("--save", type=Path, help="save the model again, in the pickled shards of LLaVA 1.5")
    arguments = parser.parse_args()

    tokenizer, model, processor, length = load(arguments.model, attn_implementation=arguments.attention)
    prompts = json.loads((arguments.exchange / "prompts.json").read_text())
    pixels = load_file(arguments.exchange / "pixels.safetensors")
    outputs = {
        f"{name}.{kind}": tensor.contiguous()
        for name, prompt in prompts.items()
        for kind, tensor in answer(tokenizer, model, prompt, pixels.get(name)).items()
    }
    save_file(outputs, arguments.exchange / "outputs.safetensors")
    save_file(model.state_dict(), arguments.exchange / "weights.safetensors")
    # What transformers would warn of, asked for instead of read from its messages.
    _, loading = LlavaLlamaForCausalLM.from_pretrained(arguments.model, output_loading_info=True)
    report = {
        "packages": str(Path(llava.__file__).parents[1]),
        "versions": {name: version(name) for name in ("llava-torch", "transformers", "torch")},
        "finds_llava_aurora": importlib.util.find_spec("llava_aurora") is not None,
        "tokenizer_length": len(tokenizer),
        "context_length": length,
        "crop_size": processor.crop_size,
        "bos_token_id": tokenizer.bos_token_id,
        **{kind: sorted(names) for kind, names in loading.items()},
    }
    (arguments.exchange / "report.json").write_text(json.dumps(report))
    if arguments.save:
        tokenizer.save_pretrained(arguments.save)
        model.save_pretrained(arguments.save, safe_serialization=False, max_shard_size="200KB")


if __name__ == "__main__":
    main()
