"""LLaVA's own Llama model, which can be given perception tokens.

Without them it is upstream's model: the same weights, the same names, the same numbers.
"""

from pathlib import Path
from typing import Any

import torch
from llava.model.language_model.llava_llama import LlavaConfig, LlavaLlamaForCausalLM
from transformers.modeling_outputs import CausalLMOutputWithPast

from llava_aurora.errors import AuroraError
from llava_aurora.modalities import build_modalities
from llava_aurora.modeling.embeddings import grow_embeddings
from llava_aurora.modeling.loss_parts import LossParts
from llava_aurora.perception import Perception

VISION_TOWER_FOLDER = "vision_tower"


class AuroraLlamaForCausalLM(LlavaLlamaForCausalLM):
    """`perception` is None until tokens are given (`initialize_vision_tokenizer`) or found in a folder (checkpoint.py).

    A vision tower that was trained (`config.mm_vision_tower_trained`) lies in the checkpoint's own folder; it is found
    there wherever the folder was moved to.
    """

    # The tower is loaded from its own folder, as upstream does; the state dict only repeats it.
    _keys_to_ignore_on_load_unexpected = [r"vision_tower\."]  # noqa: RUF012 - as transformers declares it

    def __init__(self, config: LlavaConfig) -> None:
        own_tower = Path(config.name_or_path or ".") / VISION_TOWER_FOLDER
        if getattr(config, "mm_vision_tower_trained", False) and own_tower.is_dir():
            config.mm_vision_tower = str(own_tower.absolute())
        super().__init__(config)
        self.perception: Perception | None = None
        self.loss_parts: LossParts | None = None

    def attach_perception(self, perception: Perception) -> None:
        """Makes the model aware of its tokens, and its config describe them."""
        self.perception = perception
        self.loss_parts = LossParts(id_ranges=perception.id_ranges())
        self.config.aurora = perception.config()

    # --- training -----------------------------------------------------------------------------------------------------

    def initialize_vision_tokenizer(self, model_args: Any, tokenizer: Any) -> None:
        """LLaVA's train() calls this when model and tokenizer stand, before the trainer is built.

        Adds the tokens of `model_args.perception_modalities`, grows the embeddings and sets what is trained. Both whole
        matrices are trained, as AURORA does. A base model that has tokens already goes on with them.

        Raises:
            AuroraError: if a modality cannot be built, the base model has tokens of other settings, or only the
                projector is to be trained.
        """
        super().initialize_vision_tokenizer(model_args, tokenizer)
        if model_args.unfreeze_mm_vision_tower:
            tower = self.get_vision_tower()
            tower.to(dtype=self.dtype)  # train() has made it half precision, which is too coarse to be trained in
            tower.vision_tower.requires_grad_(True)
            self.config.mm_vision_tower_trained = True
        settings = model_args.modality_settings()
        described: dict[str, Any] = getattr(self.config, "aurora", {})
        if not settings and not described:
            return
        if model_args.tune_mm_mlp_adapter:
            raise AuroraError(
                "--tune_mm_mlp_adapter trains and saves the projector alone, so new tokens would never be learned;"
                " leave out --perception_modalities in this stage and give them in the next"
            )
        base = Path(model_args.model_name_or_path)
        if not settings:
            self._train_tokens(Perception.from_config(described, folder=base, tokenizer=tokenizer), tokenizer)
            return
        words = len(tokenizer)
        perception = Perception.teach(tokenizer, build_modalities(settings, Path()))
        if described and described != perception.config():
            raise AuroraError(
                f"{base}: the base model has perception tokens of other settings ({described['modalities']}) than those"
                f" asked for ({perception.config()['modalities']}); leave out --perception_modalities to go on with its"
                " own"
            )
        if len(tokenizer) > words:
            new_ids, features = range(words, len(tokenizer)), perception.code_features()
            grow_embeddings(self, rows=len(tokenizer), new_ids=new_ids, features=features)
        self._train_tokens(perception, tokenizer)

    def _train_tokens(self, perception: Perception, tokenizer: Any) -> None:
        for embeddings in (self.get_input_embeddings(), self.get_output_embeddings()):
            embeddings.requires_grad_(True)
        self.attach_perception(perception)
        tokenizer.perception = perception  # the dataset is built from the tokenizer alone

    def encode_images(self, images: torch.Tensor) -> torch.Tensor:
        """Image features for the language model; with gradients for the vision tower where it is trained.

        Upstream's tower runs without gradients always, so a trained tower is called past that.
        """
        tower = self.get_vision_tower()
        if not getattr(self.config, "mm_vision_tower_trained", False):
            return super().encode_images(images)
        outputs = tower.vision_tower(images.to(tower.device, tower.dtype), output_hidden_states=True)
        features = tower.feature_select(outputs).to(images.dtype)
        return self.get_model().mm_projector(features)

    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        past_key_values: Any = None,
        inputs_embeds: torch.FloatTensor | None = None,
        labels: torch.LongTensor | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        images: torch.FloatTensor | None = None,
        image_sizes: list[list[int]] | None = None,
        return_dict: bool | None = None,
        cache_position: torch.LongTensor | None = None,
        logits_to_keep: int | torch.Tensor = 0,
    ) -> tuple | CausalLMOutputWithPast:
        """As upstream's. With perception tokens and labels, each part's loss is summed up beside the whole one's."""
        if inputs_embeds is None:
            input_ids, position_ids, attention_mask, past_key_values, inputs_embeds, labels = (
                self.prepare_inputs_labels_for_multimodal(
                    input_ids, position_ids, attention_mask, past_key_values, labels, images, image_sizes
                )
            )
        outputs = super().forward(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            labels=labels,
            use_cache=use_cache,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            return_dict=return_dict,
            cache_position=cache_position,
            logits_to_keep=logits_to_keep,
        )
        if labels is not None and self.training and self.loss_parts is not None:
            self.loss_parts.add(outputs.logits, labels)
        return outputs
