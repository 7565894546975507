"""The attention mask of a decoding step with a key/value cache.

transformers 4.57 builds the mask of a padded batch element by element with vmap (`masking_utils.create_causal_mask`),
which takes nearly half of a small model's pass. Here it is one comparison; transformers uses a mask of four dimensions
as it is.
"""

import torch
from torch import Tensor


def cached_mask(valid: Tensor, *, queries: int, implementation: str | None) -> Tensor:
    """Which keys each new token attends to: those that are valid, up to itself.

    Args:
        valid: int64 or bool (B, K), 0 at padding; the last `queries` columns are the new tokens.
    Returns bool (B, 1, Q, K); `valid` itself where transformers is faster alone: without a cache, for one token of one
    row, and for kernels other than SDPA's, which take other masks.
    """
    rows, keys = valid.shape
    if implementation != "sdpa" or keys == queries or rows == queries == 1:
        return valid
    seen = valid.bool()[:, None, None, :]
    if queries == 1:
        return seen
    places = torch.arange(keys, device=valid.device)
    return seen & (places <= places[keys - queries :, None])
