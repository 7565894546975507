"""How the values of a depth file become relative depth: the same rule at every command that reads depth maps."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from llava_aurora.errors import AuroraError

Values = Literal["metric", "relative"]
Closer = Literal["higher", "lower"]
Bits = Literal[8, 16]


@dataclass(frozen=True, kw_only=True)
class DepthScale:
    """How the values of a depth file become relative depth. Raises AuroraError if these contradict each other."""

    # "metric": distances from the camera in any unit, unknown where not positive. "relative": linear in inverse depth,
    # such as disparities and the output of relative estimators.
    values: Values
    closer: Closer  # whether "higher" or "lower" values are closer. Of distances the lower are.
    unknown: tuple[float, ...] = ()  # further values that mean unknown depth, such as 0 or 65535
    # percent of the known pixels at each end of inverse depth that get the farthest and the closest value, so that
    # single wrong pixels do not compress the range of all others; 0 takes minimum and maximum
    clip: float = 0.0
    bits: Bits = 8  # 8 or 16 a pixel

    def __post_init__(self) -> None:
        if self.values not in ("metric", "relative") or self.closer not in ("higher", "lower"):
            raise AuroraError(
                f"values are metric or relative and closer is higher or lower, not {self.values} and {self.closer}"
            )
        if self.values == "metric" and self.closer == "higher":
            raise AuroraError(
                "metric values are distances, which are lower where it is closer; for disparities use relative"
            )
        if not 0 <= self.clip < 50:
            raise AuroraError(f"clip is a percentage from 0 to under 50, not {self.clip}")
        if self.bits not in (8, 16):
            raise AuroraError(f"a map has 8 or 16 bits per pixel, not {self.bits}")

    def relative(self, depth: np.ndarray) -> np.ndarray:
        """Relative depth: per image, linear in inverse depth, the farthest known pixel 1 and the closest 255.

        round(1 + 254 * (v - far) / (near - far)) with v inverse distance, or the value itself, or its negative where
        lower is closer. 16 bits hold 257 times as much, so that reading them as 8 bits gives the 8-bit map.

        Args: depth: (H, W), any real dtype; what is not finite is unknown.
        Returns uint8 or uint16 (H, W), 0 = unknown.
        Raises ValueError if it is no such array, no depth is known or all of it is the same.
        """
        if depth.ndim != 2 or depth.dtype.kind not in "uif":
            raise ValueError(f"expected numbers, height x width, found {depth.dtype} {depth.shape}")
        depth = depth.astype(np.float64)
        known = np.isfinite(depth)
        if self.values == "metric":
            known &= depth > 0
        for value in self.unknown:
            known &= ~np.isclose(depth, value, rtol=1e-6, atol=0)
        if not known.any():
            raise ValueError("it has no known depth")
        if self.values == "metric":
            nearness = 1.0 / depth[known]
        else:
            nearness = depth[known] if self.closer == "higher" else -depth[known]
        far, near = np.percentile(nearness, [self.clip, 100 - self.clip])
        if not near > far:
            raise ValueError("its depth is the same everywhere")
        share = np.clip((nearness - far) / (near - far), 0, 1)
        step = 1 if self.bits == 8 else 257
        relative = np.zeros(depth.shape, np.uint8 if self.bits == 8 else np.uint16)
        relative[known] = np.rint(step * (1 + 254 * share))
        return relative
