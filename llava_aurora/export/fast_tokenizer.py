"""The tokenizer of a LLaVA checkpoint as engines load it: a fast one, with a token for the image.

LLaVA cuts a prompt at `<image>` and encodes the pieces one by one, so that each begins like a text of its own; engines
encode it whole, with the image as a token. The normalizer makes both the same ids.

`<s>` is written by the chat template, and the tokenizer adds none: some engines ask it to when they encode what the
template has filled in, others do not, and the ids have to be the same.
"""

from typing import Any

from llava.constants import DEFAULT_IMAGE_TOKEN, IMAGE_TOKEN_INDEX
from llava.mm_utils import tokenizer_image_token
from sentencepiece.sentencepiece_model_pb2 import ModelProto  # type: ignore[attr-defined]
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from llava_aurora.compatibility import LlamaTokenizer, generate_merges
from llava_aurora.errors import AuroraError


def fast_tokenizer(tokenizer: Any) -> PreTrainedTokenizerFast:
    """A fast tokenizer with the same ids, and `<image>` after the last of them.

    Raises AuroraError if it is no LlamaTokenizer.
    """
    if not isinstance(tokenizer, LlamaTokenizer):
        raise AuroraError(
            f"{tokenizer.name_or_path}: a {type(tokenizer).__name__}; only LlamaTokenizer (SentencePiece) is exported"
        )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=_converted(tokenizer),
        bos_token=tokenizer.bos_token,
        eos_token=tokenizer.eos_token,
        unk_token=tokenizer.unk_token,
        pad_token=tokenizer.pad_token or tokenizer.unk_token,
        model_max_length=tokenizer.model_max_length,
        model_input_names=["input_ids", "attention_mask"],
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )
    fast.add_tokens([AddedToken(DEFAULT_IMAGE_TOKEN, special=True, normalized=False)], special_tokens=True)
    if not tokenizer.legacy:
        # The legacy normalizer puts a blank before every piece. The other one puts none after a token; but the piece
        # after an image, a line break and the question, is the beginning of a text to LLaVA.
        line_break = normalizers.Replace(Regex(r"\A\n"), " \n")
        fast.backend_tokenizer.normalizer = normalizers.Sequence([fast.backend_tokenizer.normalizer, line_break])
    return fast


def _converted(tokenizer: Any) -> Tokenizer:
    """Its SentencePiece model as byte pairs, with the rules of LlamaTokenizerFast of transformers 4.

    That class is another one in transformers 5. It adds no token, and finds added ones in the text as it is:
    normalized, only behind a blank. User-defined symbols, which SentencePiece looks for before it merges anything, are
    added tokens in which a blank is `▁`.
    """
    pieces = tokenizer.sp_model
    vocabulary = {pieces.id_to_piece(i): i for i in range(pieces.get_piece_size())}
    merges = generate_merges(vocabulary, {piece: pieces.get_score(i) for piece, i in vocabulary.items()})
    unknown = pieces.id_to_piece(pieces.unk_id())
    backend = Tokenizer(models.BPE(vocabulary, merges, unk_token=unknown, fuse_unk=True, byte_fallback=True))
    prefix, blank = tokenizer.add_prefix_space, "▁"
    if tokenizer.legacy:
        prepend = [normalizers.Prepend(blank)] if prefix else []
        backend.normalizer = normalizers.Sequence([*prepend, normalizers.Replace(" ", blank)])
    else:
        scheme = "first" if prefix else "never"
        backend.normalizer = normalizers.Replace(" ", blank)
        backend.pre_tokenizer = pre_tokenizers.Metaspace(blank, prepend_scheme=scheme, split=False)
    strip = [decoders.Strip(" ", 1, 0)] if prefix else []
    backend.decoder = decoders.Sequence(
        [decoders.Replace(blank, " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
    )
    for piece in ModelProto.FromString(pieces.serialized_model_proto()).pieces:
        if piece.type == piece.USER_DEFINED:
            backend.add_tokens([AddedToken(piece.piece, normalized=True)])
    for token in tokenizer.added_tokens_decoder.values():  # by their ids
        backend.add_tokens([AddedToken(token.content, normalized=False, special=token.special)])
    return backend


def after_bos(tokenizer: Any) -> str:
    """What a text needs behind a written `<s>` to be read as one that begins; the legacy normalizer puts it itself."""
    return "" if tokenizer.legacy else " "


def check_same_ids(tokenizer: Any, fast: Any, *, prompts: list[str]) -> None:
    """Raises AuroraError for the first prompt, `<image>` in it or not, that the two encode to other ids.

    Both ways are tried in which engines encode what the chat template has filled in: with special tokens added or not.
    """
    image = fast.convert_tokens_to_ids(DEFAULT_IMAGE_TOKEN)
    for prompt in prompts:
        ours = [image if i == IMAGE_TOKEN_INDEX else i for i in tokenizer_image_token(prompt, tokenizer)]
        begun = fast.bos_token + after_bos(tokenizer) + prompt
        for theirs in (fast(begun, add_special_tokens=added).input_ids for added in (False, True)):
            if ours != theirs:
                place = next((i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), len(theirs))
                raise AuroraError(
                    f"{tokenizer.name_or_path}: its fast version gives other tokens from number {place} on for"
                    f" {prompt!r}; its SentencePiece model has rules that transformers does not convert"
                )
