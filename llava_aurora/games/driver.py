"""A scripted driver of CarRacing-v3 that sees what a model sees: the frame."""

import numpy as np
from numpy.typing import NDArray

Action = tuple[float, float, float]  # steering -1 … 1, gas 0 … 1, brake 0 … 1

NOTHING: Action = (0.0, 0.0, 0.0)
CAR = (70, 48)  # row and column of the car, whose nose is up, in the 96×96 frame
_ROWS = range(CAR[0] - 8, 24, -2)  # from the nose on, as far as the road is read


def road_mask(frame: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """The grey of the road in an RGB frame H×W×3, above the bar of instruments (rows 84 on)."""
    least, most = frame.min(axis=-1).astype(int), frame.max(axis=-1).astype(int)
    mask = (most - least < 20) & (most > 80) & (most < 180)
    mask[84:] = False
    return mask


def middle_of_road(mask: NDArray[np.bool_]) -> list[tuple[int, float]]:
    """(row, column) of the road's middle, followed from the car on until it is lost; empty beside the road."""
    column, found = float(CAR[1]), []
    for row in _ROWS:
        columns = np.flatnonzero(mask[row])
        if not columns.size:
            break
        stretches = np.split(columns, np.flatnonzero(np.diff(columns) > 1) + 1)
        nearest = min(stretches, key=lambda stretch: np.abs(stretch - column).min())
        if np.abs(nearest - column).min() > 12:
            break
        column = float(nearest.mean())
        found.append((row, column))
    return found


class ScriptedDriver:
    """Proportional and differential steering to a point of the road ahead; slower the more the road bends."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget the round: the next frame is the first of another."""
        self._error = 0.0

    def act(self, frame: NDArray[np.uint8]) -> Action:
        """Action for an RGB frame 96×96×3."""
        mask = road_mask(frame)
        middle = middle_of_road(mask)
        speed = _speed(frame)
        if middle:
            target = [point for point in middle if point[0] >= CAR[0] - 24][-1]
        else:  # off the road: to its nearest point
            rows, columns = np.nonzero(mask)
            if not rows.size:
                return (0.0, 0.2 if speed < 2 else 0.0, 0.0)
            nearest = int(np.argmin((rows - CAR[0]) ** 2 + (columns - CAR[1]) ** 2))
            target = (int(rows[nearest]), float(columns[nearest]))
        error = _angle(target)
        steering = float(np.clip(0.9 * error + 2.0 * (error - self._error), -1, 1))
        self._error = error
        bend = abs(_angle(middle[-1])) if middle else np.pi
        lost = len(middle) < len(_ROWS) * 0.8  # the road leaves the rows that are read: a sharp bend
        wanted = 2.0 if lost or bend > 0.4 else 3.0 if bend > 0.15 else 4.0
        gas = 0.0 if speed >= wanted else 0.6 * (1 - 0.7 * abs(steering))
        return (steering, gas, 0.3 if speed > wanted else 0.0)


def _angle(point: tuple[int, float]) -> float:
    """Of a point (row, column) as the car sees it: 0 ahead, to the right positive, radians."""
    return float(np.arctan2(point[1] - CAR[1], CAR[0] - point[0]))


def _speed(frame: NDArray[np.uint8]) -> float:
    """Height in pixels of the white bar of true speed, at the left of the instruments."""
    return float((frame[84:, 12:14].min(axis=-1) > 150).any(axis=1).sum())
