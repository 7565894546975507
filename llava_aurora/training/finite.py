"""LLaVA's trainer, which stops a run whose loss or weights are not finite before they are saved."""

from pathlib import Path
from typing import Any

import torch
from llava.train.llava_trainer import LLaVATrainer

from llava_aurora.errors import AuroraError
from llava_aurora.training import checkpoint_folder
from llava_aurora.training.trained_weights import first_broken


class FiniteTrainer(LLaVATrainer):
    """Names the records of the batch, and the checkpoint from which to go on."""

    _batch_records: torch.Tensor | None = None

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> torch.Tensor:
        self._batch_records = inputs.pop("record_indices", None)
        return super().training_step(model, inputs, num_items_in_batch)

    def prediction_step(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        inputs.pop("record_indices", None)
        return super().prediction_step(model, inputs, *args, **kwargs)

    def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Raises AuroraError if the loss of a training step is not finite, before any gradient is."""
        result = super().compute_loss(model, inputs, *args, **kwargs)
        loss = result[0] if isinstance(result, tuple) else result
        if model.training and not torch.isfinite(loss).all():
            raise AuroraError(
                f"step {self.state.global_step + 1}, rank {self.args.process_index}: the loss is"
                f" {loss.mean().item()}; the batch was {self._batch_names()}. {self._way_on()}"
            )
        return result

    def _batch_names(self) -> str:
        if self._batch_records is None:
            return "of unknown records"
        records, row = self.train_dataset.list_data_dict, self.train_dataset.store.row
        names = [f"{row(index)} (id {records[index].get('id')})" for index in self._batch_records.tolist()]
        return f"records {', '.join(names)}"

    def _refuse_broken_weights(self, what: str) -> None:
        """Raises AuroraError, on every rank, if a trained weight is not finite."""
        name = first_broken(self.model, self.args.device)
        if name is not None:
            raise AuroraError(
                f"step {self.state.global_step}: {name} holds NaN or infinity, {what} is not saved. {self._way_on()}"
            )

    def _last_good(self) -> str:
        newest = checkpoint_folder.newest_whole(Path(self.args.output_dir))
        return str(newest) if newest else "what was saved before"

    def _way_on(self) -> str:
        newest = checkpoint_folder.newest_whole(Path(self.args.output_dir))
        if newest is None:
            return "No checkpoint was saved before; fix the records or lower --learning_rate, and start over"
        return (
            f"The last good checkpoint is {newest}. If the records are at fault, fix them and resume with"
            f" --resume_from_checkpoint {newest}; if the learning rate is too high, start over with a lower one, as a"
            " resumed run keeps its own"
        )

    def _say(self, line: str) -> None:
        if self.is_world_process_zero():
            print(line, flush=True)
