"""LLaVA's trainer, which logs each part of the loss and leaves folders that describe themselves."""

from pathlib import Path
from typing import Any

import torch
from llava.train.llava_trainer import LLaVATrainer
from llava.train.train import maybe_zero_3

from llava_aurora.atomic import staged_into
from llava_aurora.modeling.aurora_llama import AuroraLlamaForCausalLM
from llava_aurora.modeling.checkpoint import TOWER_PREFIX, write_perception_files


class AuroraTrainer(LLaVATrainer):
    """As upstream's as long as the model has no perception tokens and its vision tower is frozen."""

    @property
    def aurora_model(self) -> AuroraLlamaForCausalLM:
        """The model itself, without wrappers of PEFT."""
        return self.model.get_base_model() if hasattr(self.model, "get_base_model") else self.model

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Adds `loss_text`, `loss_depth`, … to each line of training log. Called on every rank."""
        parts = self.aurora_model.loss_parts
        if parts is not None and "loss" in logs:
            logs |= {f"loss_{name}": round(value, 4) for name, value in parts.read().items()}
        super().log(logs, *args, **kwargs)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, torch.Tensor] | None = None) -> None:
        """Writes a whole model: under another name first, so that an older one stays until the new one is whole."""
        final_folder = Path(output_dir or self.args.output_dir)
        with staged_into(final_folder) as staging:
            super()._save(str(staging), state_dict)
            if (staging / "config.json").is_file():
                weights = self.model.state_dict() if state_dict is None else state_dict
                write_perception_files(staging, model=self.aurora_model, weights=weights, final_folder=final_folder)

    def save_state(self) -> None:
        """LLaVA's train() calls this after the last step; a LoRA folder gets what upstream does not write into it."""
        super().save_state()
        if not self.args.lora_enable:
            return
        folder, model = Path(self.args.output_dir), self.aurora_model
        weights = {}
        if getattr(model.config, "mm_vision_tower_trained", False):
            tower = ((name, value) for name, value in model.named_parameters() if TOWER_PREFIX in name)
            weights = {name: maybe_zero_3(value, ignore_status=True) for name, value in tower}
        if self.args.should_save:
            with staged_into(folder) as staging:
                self.processing_class.save_pretrained(staging)
                write_perception_files(staging, model=model, weights=weights, final_folder=folder)
