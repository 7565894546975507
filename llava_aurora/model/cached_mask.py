"""The attention mask of a decoding step, made at once.

In every pass over a padded batch transformers builds its mask element by element with vmap (4.57,
`masking_utils.create_causal_mask`), which for a small model takes nearly half of the pass. With a key/value cache the
mask is one comparison; one that has four dimensions already is taken as it is.
"""

import torch
from torch import Tensor


def cached_mask(valid: Tensor, *, queries: int, implementation: str | None) -> Tensor:
    """What each new token may look at: whatever is valid, up to itself.

    Args:
        valid: int64 or bool (B, K), 0 at padding; the last `queries` columns are the new tokens.
        queries: Q, tokens that are read now.
        implementation: of attention, as in the model's config.

    Returns:
        bool (B, 1, Q, K); or `valid` as it was where transformers does better by itself: while there is no cache yet,
        for one token of one row, and for other kernels than SDPA's, which take other masks.
    """
    rows, keys = valid.shape
    if implementation != "sdpa" or keys == queries or rows == queries == 1:
        return valid
    seen = valid.bool()[:, None, None, :]
    if queries == 1:
        return seen
    places = torch.arange(keys, device=valid.device)
    return seen & (places <= places[keys - queries :, None])
