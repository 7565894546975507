"""Trains as scripts/finetune_aurora.sh does, with an attention kernel that is named, and writes down what it took.

deepspeed llava_aurora/gpu/train_layers.py --kernel sdpa --measured measured.json [flags of finetune_aurora.sh]
"""

import argparse
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from llava_aurora import installation
from llava_aurora.files import write_json
from llava_aurora.training.train import main


class Measure(TrainerCallback):
    """Seconds and losses of each step, tokens of a record, labels of a batch, peak memory, bytes of the optimizer.

    Args: out: the JSON file that they are written to when training ends.
    """

    def __init__(self, out: Path) -> None:
        self.out = out
        self.found: dict[str, Any] = {"seconds": [], "losses": [], "length": 0, "labels": 0}

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        modules = dict(model.named_modules())
        # (B, T, D), and one row for each label
        for end, name, axis in (("layers.0.self_attn.q_proj", "length", 1), ("lm_head", "labels", 0)):
            layer = next(module for path, module in modules.items() if path.endswith(end))
            layer.register_forward_hook(partial(self._look, name, axis))

    def _look(self, name: str, axis: int, layer: Any, given: Any, output: torch.Tensor) -> None:
        self.found[name] = max(self.found[name], output.shape[axis])

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.started = self._now()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.found["seconds"].append(self._now() - self.started)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        if "loss" in logs:
            self.found["losses"].append(float(logs["loss"]))

    def on_train_end(self, args: Any, state: Any, control: Any, optimizer: Any = None, **_: Any) -> None:
        held: list[Any] = []
        while hasattr(optimizer, "optimizer"):  # accelerate's and DeepSpeed's around torch's
            held += getattr(optimizer, "fp32_partitioned_groups_flat", [])
            optimizer = optimizer.optimizer
        held += [value for each in optimizer.state.values() for value in each.values()]
        tensors = [each for each in held if isinstance(each, torch.Tensor) and each.dim()]
        self.found["optimizer_bytes"] = sum(each.numel() * each.element_size() for each in tensors)
        if torch.cuda.is_available():
            self.found["peak_bytes"] = torch.cuda.max_memory_allocated()
        write_json(self.out, self.found)

    @staticmethod
    def _now() -> float:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--kernel", required=True)
    parser.add_argument("--measured", type=Path, required=True)
    options, sys.argv[1:] = parser.parse_known_args()
    installation.attention_kernel = lambda: (options.kernel, "asked for")
    main(__file__, callbacks=[Measure(options.measured)])
