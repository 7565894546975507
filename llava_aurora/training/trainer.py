"""LLaVA's trainer with perception tokens: parts of the loss in the log, learning rates by part, complete folders."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from llava.train.train import get_peft_state_maybe_zero_3, get_peft_state_non_lora_maybe_zero_3
from peft import PeftModel
from torch import Tensor
from torch.utils.data import Sampler, SequentialSampler
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState
from transformers.integrations import TensorBoardCallback
from transformers.trainer_utils import EvalLoopOutput

from llava_aurora.data.curriculum.length_grouped_batches import LengthGroupedBatches
from llava_aurora.data.curriculum.sampler import Curriculum, CurriculumSampler, planned_epochs
from llava_aurora.data.curriculum.schedule_table import draw_schedule, print_schedule
from llava_aurora.data.dataset import AuroraDataset
from llava_aurora.errors import AuroraError
from llava_aurora.model.aurora_llama import AuroraLlamaForCausalLM
from llava_aurora.model.code_metrics import CodeMetrics
from llava_aurora.model.context_mask import ContextMask
from llava_aurora.model.losses import parse_aux_losses
from llava_aurora.model.training_loss import TrainingSettings
from llava_aurora.model.writing import write_lora_folder, write_projector_folder, write_whole_folder
from llava_aurora.training.parameter_groups import PARTS, parameter_groups
from llava_aurora.training.resumable import ResumableTrainer

# Flags that change the training of perception tokens.
NEED_TOKENS = ("aux_losses", "information_bottleneck", "span_mask_probability", "code_noise")


class AuroraTrainer(ResumableTrainer):
    """The same as upstream's as long as the model has no perception tokens and its vision tower is frozen."""

    callbacks: ClassVar[Sequence[TrainerCallback]] = ()  # added to every trainer; train.run sets them

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.aurora_model.perception is not None:
            settings = TrainingSettings(
                aux_losses=parse_aux_losses(self.args.aux_losses),
                context_mask=ContextMask.parse(
                    self.args.information_bottleneck, probability=self.args.information_bottleneck_probability
                ),
                span_mask_probability=self.args.span_mask_probability,
                span_noise_probability=self.args.span_noise_probability,
                code_noise=self.args.code_noise,
                values=self.train_dataset.data_args.value_step,
            )
            self.aurora_model.start_training(settings, tokenizer=self.processing_class)
        elif wanted := [flag for flag in NEED_TOKENS if getattr(self.args, flag)]:
            raise AuroraError(f"--{wanted[0]} needs a model with perception tokens: give --perception_modalities")
        self.aurora_model.trained_on = str(self.train_dataset.data_path)
        self.projector_only = self.args.tune_mm_mlp_adapter
        # Upstream asks these two whether to write a folder by itself, file by file under its final name; without them
        # it leaves every folder to the trainer's save_model.
        self.args.tune_mm_mlp_adapter = self.args.lora_enable = False

        for callback in (StartEpoch(self.train_dataset), *self.callbacks):
            self.add_callback(callback)
        if self.curriculum is not None and self.is_world_process_zero():
            epochs = planned_epochs(self.args, length=self.curriculum.length)
            print_schedule(self.curriculum, epochs)
            draw_schedule(self.curriculum, epochs, Path(self.args.output_dir) / "curriculum.png")

    @property
    def curriculum(self) -> Curriculum | None:
        """The order of the training records, if they have one of their own."""
        return getattr(self.train_dataset, "curriculum", None)

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler | None:
        if not self.train_dataset.data_args.shuffle:
            return SequentialSampler(self.train_dataset)
        if self.curriculum is None:
            return super()._get_train_sampler(train_dataset)
        epochs = planned_epochs(self.args, length=self.curriculum.length)
        seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
        return CurriculumSampler(self.curriculum, epochs=epochs, seed=seed, length_grouped_batches=self._like_lengths())

    def _like_lengths(self) -> LengthGroupedBatches | None:
        if not self.args.group_by_modality_length:
            return None
        tower, mixed = self.aurora_model.get_vision_tower(), self.args.lengths_per_step
        batches = self.args.world_size * self.args.gradient_accumulation_steps
        if batches % mixed:
            raise AuroraError(
                f"--lengths_per_step {mixed}: a step has {batches} batches ({self.args.world_size} ranks ×"
                f" {self.args.gradient_accumulation_steps} accumulation steps), each of one length; give a divisor of"
                " that, or set --gradient_accumulation_steps"
            )
        return LengthGroupedBatches(
            lengths=self.train_dataset.store.lengths,
            image_tokens=0 if tower is None else tower.num_patches,
            batch=self.args.train_batch_size * batches,
            mixed=mixed,
        )

    @property
    def aurora_model(self) -> AuroraLlamaForCausalLM:
        """The model itself, without wrappers of PEFT."""
        return self.model.get_base_model() if hasattr(self.model, "get_base_model") else self.model

    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
        """As upstream's, with the auxiliary losses from their first steps on."""
        if self.aurora_model.training_loss is not None:
            self.aurora_model.training_loss.step = self.state.global_step
        return super().training_step(*args, **kwargs)

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Adds `loss_text`, `loss_depth`, … to each line of training log. Called on every rank."""
        training_loss = self.aurora_model.training_loss
        if training_loss is not None and "loss" in logs:
            logs |= {f"loss_{name}": _short(value) for name, value in training_loss.meter.read().items()}
        super().log(logs, *args, **kwargs)

    # --- what an evaluation measures ----------------------------------------------------------------------------------

    def evaluation_loop(self, *args: Any, metric_key_prefix: str = "eval", **kwargs: Any) -> EvalLoopOutput:
        """As upstream's, with each part of the loss, the accuracy of codes, and pictures of maps for TensorBoard."""
        training_loss = self.aurora_model.training_loss
        if training_loss is None:
            return super().evaluation_loop(*args, metric_key_prefix=metric_key_prefix, **kwargs)
        training_loss.metrics = metrics = CodeMetrics(training_loss.perception, pictures=self.args.eval_pictures)
        try:
            output = super().evaluation_loop(*args, metric_key_prefix=metric_key_prefix, **kwargs)
        finally:
            training_loss.metrics = None
        figures = {f"{metric_key_prefix}_{name}": _short(value) for name, value in metrics.read().items()}
        output.metrics.update(figures)
        for callback in self.callback_handler.callbacks:
            if isinstance(callback, TensorBoardCallback) and callback.tb_writer is not None:
                for number, picture in enumerate(metrics.pictures()):
                    name = f"{metric_key_prefix}/map_{number} (true, written)"
                    callback.tb_writer.add_image(name, np.asarray(picture), self.state.global_step, dataformats="HWC")
        return output

    # --- what is trained how fast -------------------------------------------------------------------------------------

    def create_optimizer(self) -> torch.optim.Optimizer:
        """Upstream's optimizer; with `--perception_lr` or `--mm_vision_tower_lr` each part has a rate of its own."""
        rates = {flag: getattr(self.args, flag) for flag in PARTS}
        if self.optimizer is not None or (rates["perception_lr"] is None and rates["mm_vision_tower_lr"] is None):
            return super().create_optimizer()
        optimizer_class, options = Trainer.get_optimizer_cls_and_kwargs(self.args)
        groups = parameter_groups(
            self.model.named_parameters(),
            rates=rates,
            decayed=self.get_decay_parameter_names(self.model),
            weight_decay=self.args.weight_decay,
        )
        self.optimizer: torch.optim.Optimizer = optimizer_class(groups, **options)
        return self.optimizer

    # --- what a folder gets -------------------------------------------------------------------------------------------

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Writes the trained model, whole, LoRA or projector only, as a folder that describes itself.

        A collective operation under ZeRO-3; rank 0 writes.
        """
        if not self.projector_only and not isinstance(self.model, PeftModel):
            super().save_model(output_dir, _internal_call)  # gathers, then calls _save on rank 0
            return
        folder = Path(output_dir or self.args.output_dir)
        others = get_peft_state_non_lora_maybe_zero_3(self.model.named_parameters())
        if self.projector_only:
            if self.args.should_save:
                write_projector_folder(folder, model=self.model, tokenizer=self.processing_class, weights=others)
            return
        adapter = get_peft_state_maybe_zero_3(self.model.named_parameters(), self.args.lora_bias)
        if self.args.should_save:
            write_lora_folder(folder, model=self.model, tokenizer=self.processing_class, adapter=adapter, others=others)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Tensor] | None = None) -> None:
        """Writes a whole model, on rank 0. Upstream calls it there with the gathered weights, or on every rank."""
        if not self.args.should_save:
            return
        folder = Path(output_dir or self.args.output_dir)
        weights = self.model.state_dict() if state_dict is None else state_dict
        write_whole_folder(folder, model=self.aurora_model, weights=weights, write=super()._save)


class StartEpoch(TrainerCallback):
    """Tells the dataset which epoch it is, before the epoch's workers are started."""

    def __init__(self, dataset: AuroraDataset) -> None:
        self.dataset = dataset

    def on_epoch_begin(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self.dataset.start_epoch(int(state.epoch or 0))


def _short(value: float) -> float:
    return float(f"{value:.4g}")


def save_trained_model(trainer: AuroraTrainer, output_dir: str) -> None:
    """What LLaVA's train() calls at its end, on every rank."""
    trainer.save_model(output_dir)
