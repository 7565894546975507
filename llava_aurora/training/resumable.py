"""LLaVA's trainer with exact resuming: a run that was killed continues with the numbers of an uninterrupted one.

A checkpoint-N appears only when it is complete, and `--resume_from_checkpoint` is checked before anything is loaded.
"""

import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
import transformers
from accelerate.data_loader import SeedableRandomSampler
from accelerate.utils import broadcast_object_list
from llava.train.llava_trainer import LengthGroupedSampler
from peft import PeftModel
from safetensors import SafetensorError
from torch.utils.data import RandomSampler, Sampler
from transformers.trainer_utils import TrainOutput

from llava_aurora.compatibility import has_present_tower_names, rotate_checkpoints
from llava_aurora.errors import AuroraError
from llava_aurora.files import read_json_object
from llava_aurora.model.aurora_llama import VISION_TOWER_FOLDER
from llava_aurora.model.folders import NON_LORA_WEIGHTS, PROJECTOR_WEIGHTS
from llava_aurora.model.perception_head import ROWS
from llava_aurora.training import checkpoint_folder, world_size
from llava_aurora.training.checkpoint_folder import STATE, RunRecord
from llava_aurora.training.epoch_order import EpochOrder
from llava_aurora.training.finite import FiniteTrainer
from llava_aurora.training.safe_loading import weights_only_loading
from llava_aurora.training.trained_weights import load_exactly

ORDER = "epoch_order.pt"


class ResumableTrainer(FiniteTrainer):
    """A training step computes what upstream's does."""

    _staging: Path | None = None  # where a checkpoint is being written
    _universal: Path | None = None  # the resumed checkpoint, converted for another number of ranks
    _resumed_order: dict[str, torch.Tensor] | None = None
    _resumed_step: int = 0
    _epoch_order: EpochOrder | None = None

    # --- resuming -----------------------------------------------------------------------------------------------------

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any) -> TrainOutput:
        """Trains, from a checkpoint if `--resume_from_checkpoint` or LLaVA's train() says so.

        Args: resume_from_checkpoint: True if LLaVA's train() has seen a checkpoint-* in the output folder. The flag
        goes before it: a folder, "True" (the newest checkpoint of the output folder), "newest-whole" (the newest whose
        files are undamaged) or "False" (start over).
        Raises AuroraError if there is no such checkpoint, if a file of it is damaged or holds more than weights, if
        this run does not continue the one that wrote it, or if loss or weights are no longer finite.
        """
        self._clear_leftovers(Path(self.args.output_dir))
        checkpoint = self._chosen_checkpoint(resume_from_checkpoint)
        # All the time, as load_best_model_at_end reads a checkpoint after the last step.
        with weights_only_loading():
            if checkpoint is not None:
                checkpoint = self._prepared_checkpoint(checkpoint)
            result = super().train(str(checkpoint) if checkpoint else None, *args, **kwargs)
        self._refuse_broken_weights("the model")
        return result

    def _chosen_checkpoint(self, asked_for: str | bool | None) -> Path | None:
        flag = self.args.resume_from_checkpoint
        asked_for = asked_for if flag is None else {"true": True, "false": False}.get(str(flag).lower(), flag)
        if not asked_for:
            return None
        run_folder = Path(self.args.output_dir)
        if asked_for is True:
            found = checkpoint_folder.newest_whole(run_folder)
        elif asked_for == checkpoint_folder.NEWEST_WHOLE:
            found = self._newest_undamaged(run_folder)
        else:
            found = Path(asked_for)
        if found is None:
            for folder in reversed(checkpoint_folder.checkpoints(run_folder)):
                checkpoint_folder.check_whole(folder)
            raise AuroraError(f"{run_folder}: holds no checkpoint to resume; leave out --resume_from_checkpoint")
        if self.args.local_process_index == 0:
            checkpoint_folder.check_whole(found)
        self.accelerator.wait_for_everyone()
        return found

    def _newest_undamaged(self, run_folder: Path) -> Path | None:
        """Found by rank 0, since reading all files on every rank would take as many times as long."""
        found: list[Path | None] = [None]
        if self.args.process_index == 0:
            for folder in reversed(checkpoint_folder.checkpoints(run_folder)):
                damage = checkpoint_folder.damage_of(folder)
                if damage is None:
                    found = [folder]
                    break
                self._say(f"{folder}: not taken, {damage}")
        return broadcast_object_list(found)[0]

    def _prepared_checkpoint(self, checkpoint: Path) -> Path:
        """Checks that this run continues `checkpoint`; returns the folder to load, for other ranks a converted one."""
        written, now = RunRecord.read(checkpoint), self._run_record()
        written.check(checkpoint, now)
        if self.is_deepspeed_enabled:
            self._check_states(checkpoint)
        checkpoint_folder.check_optimizer_states(checkpoint, "latest" if self.is_deepspeed_enabled else "optimizer.pt")
        if (checkpoint / ORDER).is_file():
            self._resumed_order = torch.load(checkpoint / ORDER, weights_only=True)
        self._resumed_step = read_json_object(checkpoint / STATE, what="trainer state")["global_step"]
        self._say(f"resuming from {checkpoint}, step {self._resumed_step}")
        if written.data_path != now.data_path:
            self._say(f"resuming over {now.data_path}; the checkpoint was written over {written.data_path}")
        if written.world_size == now.world_size:
            return checkpoint
        self._say(
            f"resuming with {now.world_size} ranks what {written.world_size} ranks wrote: random states are not kept,"
            " so dropout differs from an uninterrupted run"
        )
        if written.zero_stage is None:
            return checkpoint
        world_size.check_convertible(checkpoint, written, now.world_size)
        into = checkpoint_folder.staging_for(
            Path(self.args.output_dir), f"{checkpoint.name}-for-{now.world_size}-ranks"
        )
        if self.args.process_index == 0:
            world_size.convert(checkpoint, into)
        self.accelerator.wait_for_everyone()
        if not into.is_dir():
            raise AuroraError(
                f"{into}: not visible here; another number of ranks needs an output folder that all nodes share"
            )
        self.accelerator.state.deepspeed_plugin.deepspeed_config.setdefault("checkpoint", {})["load_universal"] = True
        self._universal = into
        return into

    @staticmethod
    def _check_states(checkpoint: Path) -> None:
        """Raises AuroraError if DeepSpeed's states, which it loads by name, name the tower's tensors otherwise."""
        written = read_json_object(checkpoint / "config.json", what="model configuration").get("transformers_version")
        if written and not has_present_tower_names(written):
            raise AuroraError(
                f"{checkpoint}: DeepSpeed's states were written with transformers {written}, which has other names for"
                f" the vision tower's tensors than {transformers.__version__}; resume with that (bash scripts/setup.sh,"
                f" for 4.57 with STACK=4.57), {checkpoint_folder.ANEW}"
            )

    def set_initial_training_values(self, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        """As upstream's. A finished run gets no epoch more; within its last one upstream would train a step more."""
        epochs, steps_per_epoch, *others, steps = super().set_initial_training_values(*args, **kwargs)
        if self._resumed_step >= steps:
            epochs = self._resumed_step // steps_per_epoch
            self._say(
                f"{self.args.output_dir}: this run is finished, {self._resumed_step} of {steps} steps are trained; its"
                " model is written again as it is. Raise --max_steps or --num_train_epochs to train on"
            )
        return epochs, steps_per_epoch, *others, steps

    def _run_record(self) -> RunRecord:
        args, dataset = self.args, self.train_dataset
        deepspeed = self.is_deepspeed_enabled
        return RunRecord(
            world_size=args.world_size,
            per_device_batch=args.train_batch_size,
            accumulation=args.gradient_accumulation_steps,
            zero_stage=self.accelerator.state.deepspeed_plugin.zero_stage if deepspeed else None,
            lora=isinstance(self.model, PeftModel),
            order=self._order_flags(),
            data_path=str(dataset.data_path),
            records=len(dataset),
            perception=getattr(self.model.config, "aurora", None),
        )

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int] | None:
        sampler = super()._get_train_sampler(train_dataset)
        if isinstance(sampler, RandomSampler) and self.args.accelerator_config.use_seedable_sampler:
            # accelerate would replace it by this one
            sampler = SeedableRandomSampler(sampler.data_source, data_seed=self.args.data_seed)
        elif not isinstance(sampler, LengthGroupedSampler):
            return sampler
        self._epoch_order = EpochOrder(sampler, resumed=self._resumed_order)
        return self._epoch_order

    def _order_flags(self) -> dict[str, Any]:
        """The flags on which records and their order depend. A curriculum depends on the length of the run too."""
        args, data = self.args, self.train_dataset.data_args
        flags = {flag: getattr(args, flag) for flag in ("seed", "data_seed", "group_by_modality_length")}
        flags |= {
            flag: getattr(data, flag)
            for flag in (
                "shuffle",
                "train_tasks",
                "curriculum",
                "coordinate_step",
                "value_step",
                "plain_coordinates",
                "fresh_points",
            )
        }
        if data.curriculum:
            flags |= {flag: getattr(args, flag) for flag in ("num_train_epochs", "max_steps", "lengths_per_step")}
        return flags

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """Without DeepSpeed. Upstream loads a whole model or LoRA weights, this all else that was trained."""
        folder, model = Path(resume_from_checkpoint), self.model if model is None else model
        lora, projector = isinstance(model, PeftModel), (folder / PROJECTOR_WEIGHTS).is_file()
        if not projector:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        trained = {name for name, value in model.named_parameters() if value.requires_grad and "lora_" not in name}
        if not lora and (folder / VISION_TOWER_FOLDER).is_dir():
            # whose tensors have other names in another transformers; in its own folder each reads them
            tower = model.get_vision_tower().vision_tower
            tower.load_state_dict(type(tower).from_pretrained(folder / VISION_TOWER_FOLDER).state_dict())
        if lora or projector:
            load_exactly(model, folder / (PROJECTOR_WEIGHTS if projector else NON_LORA_WEIGHTS), names=trained)
        elif any(name.endswith(ROWS) for name in trained):
            raise AuroraError(
                f"{folder}: the rows of new tokens are part of the vocabulary matrices there, which a run"
                f" without DeepSpeed cannot split; start with --deepspeed, {checkpoint_folder.ANEW}"
            )

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        groups = (self.optimizer if optimizer is None else optimizer).param_groups
        self._group_settings = [{name: value for name, value in group.items() if name != "params"} for group in groups]
        return super().create_scheduler(num_training_steps, optimizer)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if self._universal is None:
            return
        # Under ZeRO-3 DeepSpeed gives every group the learning rate and weight decay of the first, and all groups the
        # same tensor as step counter, which Adam then advances once a group.
        optimizer, rates = self.lr_scheduler.optimizer, self.lr_scheduler.get_last_lr()
        for group, settings, rate in zip(optimizer.param_groups, self._group_settings, rates, strict=True):
            group.update(settings, lr=rate)
        for state in optimizer.state.values():
            if torch.is_tensor(state.get("step")):
                state["step"] = state["step"].clone()
        # This run's own checkpoints are not universal.
        self.deepspeed._config.load_universal_checkpoint = False
        self.accelerator.wait_for_everyone()
        if self.args.process_index == 0:
            for folder in self._universal.glob("global_step*"):
                shutil.rmtree(folder, ignore_errors=True)
        self._universal = None

    # --- saving -------------------------------------------------------------------------------------------------------

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Writes checkpoint-N under another name, and renames it when every rank has written its part."""
        run_folder = Path(self._get_output_dir(trial))
        final = run_folder / f"checkpoint-{self.state.global_step}"
        self._refuse_broken_weights(final.name)
        self._clear_leftovers(run_folder)
        self._staging = checkpoint_folder.staging_for(run_folder, final.name)
        staged = self._staging / final.name
        try:
            super()._save_checkpoint(model, trial)
            if self.state.best_model_checkpoint == str(staged):
                self.state.best_model_checkpoint = str(final)
            if self.args.should_save:
                self._run_record().write(staged)
                if self._epoch_order is not None:
                    torch.save(self._epoch_order.state, staged / ORDER)
                if (staged / STATE).is_file():
                    self.state.save_to_json(str(staged / STATE))
        except (OSError, RuntimeError, SafetensorError) as error:
            reason = str(error).strip().partition("\n")[0]
            raise AuroraError(f"{final}: not written ({reason}); {self._last_good()} is unchanged") from error
        self.accelerator.wait_for_everyone()
        self._put_in_place(final)
        if self.args.should_save:
            rotate_checkpoints(self, run_folder)
            if self.args.push_to_hub:
                self._push_from_checkpoint(str(final))

    def _put_in_place(self, final: Path) -> None:
        """Rank 0 renames the checkpoint; then the first rank of each node whose disk rank 0 does not share."""
        staging, self._staging = self._staging, None
        assert staging is not None
        if self.args.process_index == 0:
            checkpoint_folder.put_in_place(staging, final)
        self.accelerator.wait_for_everyone()
        if self.args.process_index != 0 and self.args.local_process_index == 0:
            with suppress(FileNotFoundError):
                checkpoint_folder.put_in_place(staging, final)
        self.accelerator.wait_for_everyone()

    def _clear_leftovers(self, run_folder: Path) -> None:
        if self.args.local_process_index == 0:
            checkpoint_folder.clear_leftovers(run_folder)
        self.accelerator.wait_for_everyone()

    # While a checkpoint is written, upstream gets the temporary folder, where it finds none to rotate; it pushes none:

    def _get_output_dir(self, trial: Any) -> str:
        return super()._get_output_dir(trial) if self._staging is None else str(self._staging)

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        if self._staging is None:
            super()._push_from_checkpoint(checkpoint_folder)
