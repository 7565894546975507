"""LLaVA's Llama model with perception tokens; without tokens it computes the same as LLaVA's on the same libraries."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from llava.constants import IMAGE_TOKEN_INDEX
from llava.model.language_model.llava_llama import LlavaConfig, LlavaLlamaForCausalLM
from torch import Tensor
from transformers import DynamicCache, LogitsProcessorList
from transformers.modeling_outputs import CausalLMOutputWithPast

from llava_aurora.errors import AuroraError
from llava_aurora.model.cached_mask import cached_mask
from llava_aurora.model.constraint import PerceptionLogitsProcessor
from llava_aurora.model.context_mask import text_and_image
from llava_aurora.model.embeddings import (
    RowStart,
    grow_embeddings,
    initial_rows_of,
    present_rows_of,
    tokens_with_rows,
    write_rows,
)
from llava_aurora.model.labelled_tokens import pack_ids_into_labels, unpack_ids_from_labels
from llava_aurora.model.perception_head import ROWS, split_rows
from llava_aurora.model.training_loss import TrainingLoss, TrainingSettings
from llava_aurora.tokens import build_kinds
from llava_aurora.tokens.perception import PerceptionTokens

VISION_TOWER_FOLDER = "vision_tower"


def tower_name(folder: Path, settings: dict[str, Any]) -> Any:
    """The vision tower that the config.json of a model folder names, or the folder's own; None if there is none.

    The folder's own is used if it was trained, or if it is named by its relative path.
    """
    named, own = settings.get("mm_vision_tower"), folder / VISION_TOWER_FOLDER
    inside = settings.get("mm_vision_tower_trained") or named == VISION_TOWER_FOLDER
    return str(own.absolute()) if inside and own.is_dir() else named


class AuroraLlamaForCausalLM(LlavaLlamaForCausalLM):
    """`perception` is None until tokens are given (`initialize_vision_tokenizer`) or found in a folder (checkpoint.py).

    `training_loss` is None until `start_training`. A trained vision tower (`config.mm_vision_tower_trained`) is read
    from the checkpoint's own folder, wherever that was moved to.
    """

    # The tower is loaded from its own folder, as upstream does; the state dict only repeats it.
    _keys_to_ignore_on_load_unexpected = [r"vision_tower\."]  # noqa: RUF012 - as transformers declares it

    def __init__(self, config: LlavaConfig) -> None:
        if hasattr(config, "mm_vision_tower"):
            config.mm_vision_tower = tower_name(Path(config.name_or_path or "."), vars(config))
        super().__init__(config)
        self.perception: PerceptionTokens | None = None
        self.training_loss: TrainingLoss | None = None
        self.trained_on = ""  # the training file, for the model card

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
        """As upstream's; with 4 or 8 bits the output head is not quantized, since new rows are joined to it.

        LLaVA passes load_in_4bit both alone and in the quantization config, which transformers 4.57 refuses. Without a
        dtype it relies on float32, where transformers 5 takes that of the checkpoint.
        """
        quantization = kwargs.get("quantization_config")
        if quantization is None and kwargs.get("dtype", kwargs.get("torch_dtype")) is None:
            kwargs["dtype"] = torch.float32
            kwargs.pop("torch_dtype", None)
        if quantization is not None:
            kwargs = {name: value for name, value in kwargs.items() if name not in ("load_in_4bit", "load_in_8bit")}
            # (a name at any level for 4.57, from the root for 5.x)
            whole = {"mm_projector", "model.mm_projector", "lm_head", *(quantization.llm_int8_skip_modules or ())}
            quantization.llm_int8_skip_modules = sorted(whole)
            placed = kwargs.get("device_map")
            if isinstance(placed, dict) and str(placed.get("")).startswith("cpu:"):  # a rank's, no device to load onto
                kwargs["device_map"] = {"": "cpu"}
        return super().from_pretrained(*args, **kwargs)

    def load_custom_generate(self, *args: Any, **kwargs: Any) -> Any:
        """Never runs custom_generate/generate.py of a model folder, as transformers would without asking."""
        raise OSError("code from a model folder is never run")

    def attach_perception(self, perception: PerceptionTokens) -> None:
        """Gives the model its tokens; its config then describes them."""
        self.perception = perception
        self.config.aurora = perception.config()

    def start_training(self, settings: TrainingSettings, *, tokenizer: Any) -> None:
        """Sets up the training loss of a model that has its tokens. To be called once, after LoRA was added.

        config.json keeps what those who ask the model have to know: whether it writes maps in one pass, and where the
        values come from that it states. Raises AuroraError if the model lacks what an auxiliary loss needs.
        """
        assert self.perception is not None
        if settings.values:
            self.attach_perception(replace(self.perception, values=settings.values))
        if settings.span_mask_probability:
            self.config.aurora_spans_in_one_pass = True
        self.training_loss = TrainingLoss(settings, model=self, tokenizer=tokenizer)

    @property
    def writes_spans_in_one_pass(self) -> bool:
        return getattr(self.config, "aurora_spans_in_one_pass", False)

    # --- given its tokens ---------------------------------------------------------------------------------------------

    def initialize_vision_tokenizer(self, model_args: Any, tokenizer: Any) -> None:
        """Called by LLaVA's train() after model and tokenizer are loaded, before the trainer is built.

        Adds the tokens of `model_args.perception_modalities` and sets what is trained: in a full fine-tuning both whole
        vocabulary matrices, otherwise the tokens' rows alone (`train_base_vocabulary` trains the whole matrices there
        too). A base model that has tokens already keeps their ids and rows; tokens of further kinds come behind them.
        Raises AuroraError if a kind cannot be built, if the base model has tokens of other settings, or if its matrices
        have a number of rows that its tokenizer and the new tokens do not explain.
        """
        super().initialize_vision_tokenizer(model_args, tokenizer)
        tower = self.get_vision_tower()
        # A base keeps its tower, but LLaVA has noted the flag's.
        self.config.mm_vision_tower = tower.vision_tower_name
        if model_args.unfreeze_mm_vision_tower:
            tower.to(dtype=self.dtype)  # train() has made it half precision, which is too coarse to be trained in
            tower.vision_tower.requires_grad_(True)
            self.config.mm_vision_tower_trained = True
        settings = model_args.kind_settings()
        described: dict[str, Any] = getattr(self.config, "aurora", {})
        if not settings and not described:
            return
        base = Path(model_args.model_name_or_path)
        words = len(tokenizer)
        if settings:
            perception = PerceptionTokens.teach(tokenizer, build_kinds(settings, Path()))
        else:
            perception = PerceptionTokens.from_config(described, folder=base, tokenizer=tokenizer)
        perception = replace(perception, values=described.get("values", ""))
        if described and not perception.continues(described):
            raise AuroraError(
                f"{base}: the base model's perception tokens have other settings ({described['modalities']}) than the"
                f" flags ({perception.config()['modalities']}); leave out --perception_modalities to keep them,"
                " or name all of its kinds, with their settings, and new ones"
            )
        self._add_rows(perception, tokenizer, words=words, model_args=model_args)
        self.attach_perception(perception)
        tokenizer.perception = perception  # the dataset is built from the tokenizer alone

    def _add_rows(self, perception: PerceptionTokens, tokenizer: Any, *, words: int, model_args: Any) -> None:
        """Makes the tokens' rows trainable, in the whole matrices or as parameters of their own.

        Rows that the matrices have for tokens stay as they are; the others are started. `words` is the length of the
        tokenizer before tokens were added.
        """
        ids = perception.token_ids()
        new = self._ids_without_rows(perception, words=words, base=model_args.model_name_or_path)
        features = {those: values for those, values in perception.code_features().items() if those.start >= new.start}
        start = RowStart(
            method=model_args.perception_init,
            features=features,
            descriptions=perception.descriptions(tokenizer)[new.start - ids.start :],
            words=ids.start,
        )
        first_stage = _rows_beside_projector(model_args.pretrain_mm_mlp_adapter, count=len(ids))
        language_model_trained = all(parameter.requires_grad for parameter in self.model.layers.parameters())
        if language_model_trained or model_args.train_base_vocabulary:
            if new:
                most = max(len(tokenizer), self.get_input_embeddings().num_embeddings)
                grow_embeddings(self, rows=most, ids=new, start=start)
            write_rows(self, ids=ids, rows=first_stage)
            for embeddings in (self.get_input_embeddings(), self.get_output_embeddings()):
                embeddings.requires_grad_(True)
            return
        rows = present_rows_of(self, ids=range(ids.start, new.start))
        if new:
            started = initial_rows_of(self, ids=new, start=start)
            rows = {matrix: torch.cat([present, started[matrix]]) for matrix, present in rows.items()}
        for matrix, row in first_stage.items():
            rows[matrix] = row.to(rows[matrix])
        split_rows(self, ids=ids, rows=rows)

    def _ids_without_rows(self, perception: PerceptionTokens, *, words: int, base: str) -> range:
        """The last of the perception tokens' ids, for which the base's matrices have no trained rows."""
        ids = perception.token_ids()
        first_ids = perception.ids.first_ids
        added = [family for family in perception.vocabulary.families if first_ids[family.name] >= words]
        if not added:
            return range(ids.stop, ids.stop)
        rows = self.get_input_embeddings().num_embeddings
        try:
            trained = tokens_with_rows(rows=rows, words=words, new=[len(family.tokens) for family in added])
        except ValueError as error:
            raise AuroraError(f"{base}: {error}; give the tokenizer and the kinds that it was trained with") from error
        if os.environ.get("RANK", "0") == "0":
            if trained:
                print(f"{base}: {rows:,} rows are {words:,} words and {trained} perception tokens, whose rows are kept")
            elif rows > words:
                print(
                    f"{base}: the {rows - words} rows after its {words:,} tokens are padding; new tokens may use them"
                )
        return range(words + trained, ids.stop)

    # --- forward ------------------------------------------------------------------------------------------------------

    def encode_images(self, images: torch.Tensor) -> torch.Tensor:
        """Image features for the language model, (B, patches, D), with gradients for a vision tower that is trained.

        Upstream's tower always runs under no_grad, so a trained tower's module is called directly.
        """
        tower = self.get_vision_tower()
        if not getattr(self.config, "mm_vision_tower_trained", False):
            return super().encode_images(images)
        outputs = tower.vision_tower(images.to(tower.device, tower.dtype), output_hidden_states=True)
        features = tower.feature_select(outputs).to(images.dtype)
        return self.get_model().mm_projector(features)

    def forward(
        self,
        input_ids: Any = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        past_key_values: Any = None,
        inputs_embeds: torch.FloatTensor | None = None,
        labels: Any = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        images: torch.FloatTensor | None = None,
        image_sizes: list[list[int]] | None = None,
        return_dict: bool | None = None,
        cache_position: torch.LongTensor | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        cache: Any = None,
    ) -> tuple | CausalLMOutputWithPast:
        """As upstream's; after `start_training`, training and its evaluations compute logits only where there is a
        label, and return the loss alone (training_loss.py). `cache` is the present name of `past_key_values`.
        """
        past_key_values = past_key_values if cache is None else cache
        if self.training_loss is None or labels is None or not (self.training or self.training_loss.metrics):
            if self.perception is not None and images is None and isinstance(past_key_values, DynamicCache):
                attention_mask = self._mask_of_step(attention_mask, input_ids, inputs_embeds)
            return super().forward(
                input_ids=input_ids,
                attention_mask=attention_mask,
                position_ids=position_ids,
                past_key_values=past_key_values,
                inputs_embeds=inputs_embeds,
                labels=labels,
                use_cache=use_cache,
                output_attentions=output_attentions,
                output_hidden_states=output_hidden_states,
                images=images,
                image_sizes=image_sizes,
                return_dict=return_dict,
                cache_position=cache_position,
                logits_to_keep=logits_to_keep,
            )
        images_of_rows: list[tuple[int, int]] = []
        ids = None
        needs_mask = True
        if inputs_embeds is None:
            if self.training and self.training_loss.change_codes is not None:
                input_ids, labels = self.training_loss.change_codes(input_ids, labels)
            if self.training_loss.context_mask is not None:
                images_of_rows = text_and_image(input_ids, attention_mask, IMAGE_TOKEN_INDEX)
            needs_ids = self.training_loss.needs_ids
            if needs_ids:
                labels = pack_ids_into_labels(labels, input_ids)
            _, position_ids, attention_mask, _, inputs_embeds, labels = self.prepare_inputs_labels_for_multimodal(
                input_ids, position_ids, attention_mask, None, labels, images, image_sizes
            )
            if needs_ids:
                labels, ids = unpack_ids_from_labels(labels)
            needs_mask = self._padding_needs_mask()
        # Not None: transformers would look for several sequences in a row then, and make a mask that keeps them apart.
        padding = attention_mask if needs_mask else torch.ones_like(labels, dtype=torch.bool)
        mask = self.training_loss.mask(padding, labels, images=images_of_rows, dtype=inputs_embeds.dtype)
        hidden = self.model(
            attention_mask=mask, position_ids=position_ids, inputs_embeds=inputs_embeds, use_cache=False
        ).last_hidden_state
        loss: Any = self.training_loss.loss(hidden, labels, head=self.lm_head, attention_mask=attention_mask, ids=ids)
        return CausalLMOutputWithPast(loss=loss)

    def _padding_needs_mask(self) -> bool:
        """Whether the attention of a training batch needs a mask for its padding.

        No token sees padding behind it, since attention is causal; without a mask torch may take its causal kernels,
        of which one is FlashAttention's. (The package flash-attn leaves out the padding of a mask.) A context mask
        needs to know what is valid.
        """
        assert self.training_loss is not None
        behind = getattr(self.config, "tokenizer_padding_side", "right") == "right"
        return not behind or self.training_loss.context_mask is not None or self.config._attn_implementation != "sdpa"

    def _mask_of_step(self, mask: Tensor | None, ids: Any, embeddings: Tensor | None) -> Tensor | None:
        """The mask of one pass with a key/value cache, without images."""
        if mask is None or mask.dim() != 2:
            return mask
        queries = ids.shape[1] if embeddings is None else embeddings.shape[1]
        return cached_mask(mask, queries=queries, implementation=self.config._attn_implementation)

    # --- generate -----------------------------------------------------------------------------------------------------

    def generate(self, *args: Any, constrained: bool = True, **kwargs: Any) -> Any:
        """As upstream's; a model with perception tokens writes well-formed spans only, whichever tool calls it.

        Args:
            args, kwargs: upstream's.
            constrained: False leaves out the constraint; a `logits_processor` that was given still applies.
        """
        given = kwargs.get("logits_processor") or []
        if (
            constrained
            and self.perception is not None
            and not any(isinstance(processor, PerceptionLogitsProcessor) for processor in given)
        ):
            kwargs["logits_processor"] = LogitsProcessorList([*given, PerceptionLogitsProcessor(self.perception)])
        return super().generate(*args, **kwargs)


def _rows_beside_projector(path: str | None, *, count: int) -> dict[str, Tensor]:
    """The rows of perception tokens that a first stage (projector only) left in its mm_projector.bin, if any.

    Raises AuroraError if there are others than `count`.
    """
    if path is None:
        return {}
    weights = torch.load(path, map_location="cpu", weights_only=True)
    rows = {
        matrix: weight
        for name, weight in weights.items()
        for place, matrix in (("embed_tokens", "input"), ("lm_head", "output"))
        if name.endswith(f"{place}.{ROWS}")
    }
    for row in rows.values():
        if len(row) != count:
            raise AuroraError(
                f"{path}: holds {len(row)} rows of perception tokens, but {count} are needed; give the modalities"
                " and settings of the run that wrote it"
            )
    return rows
