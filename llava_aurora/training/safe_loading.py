"""Loads DeepSpeed's checkpoint files without running code that is pickled in them.

DeepSpeed opens its files in many places with `weights_only=False`. An environment variable of torch overrides all of
them, and torch's list of safe globals names the classes that may still be built.
"""

import os
import pickle
import re
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from llava_aurora.errors import AuroraError

FORCE, FORBID = "TORCH_FORCE_WEIGHTS_ONLY_LOAD", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"


def safe_classes() -> list[Callable[..., Any] | tuple[Callable[..., Any], str]]:
    """The classes that DeepSpeed's files hold beside tensors: three records of numbers and one enumeration."""
    from deepspeed.runtime.fp16.loss_scaler import DynamicLossScaler, LossScaler
    from deepspeed.runtime.zero.config import ZeroStageEnum
    from deepspeed.utils.tensor_fragment import fragment_address

    return [DynamicLossScaler, LossScaler, ZeroStageEnum, fragment_address, (_member, "builtins.getattr")]


def _member(enumeration: Any, name: str) -> Any:
    """Stands in for getattr, with which some versions of Python (3.11.2) pickle the members of an enumeration."""
    from deepspeed.runtime.zero.config import ZeroStageEnum

    if enumeration is not ZeroStageEnum:
        raise pickle.UnpicklingError(f"GLOBAL builtins.getattr of {enumeration}")
    return enumeration[name]


@contextmanager
def weights_only_loading() -> Iterator[None]:
    """Within the block, torch.load in this process builds only tensors, plain values and `safe_classes`.

    Raises AuroraError naming the file and what is in it, if another object is pickled there or the file is damaged.
    """
    before = {name: os.environ.pop(name, None) for name in (FORCE, FORBID)}
    os.environ[FORCE] = "1"
    try:
        with torch.serialization.safe_globals(safe_classes()):
            yield
    except (pickle.UnpicklingError, EOFError, RuntimeError) as error:
        file = _file_of(error)
        if file is None:
            raise
        raise AuroraError(f"{file}: not loaded: {_reason(error)}; resume from another checkpoint") from error
    finally:
        del os.environ[FORCE]
        os.environ.update({name: value for name, value in before.items() if value is not None})


def _file_of(error: BaseException) -> object | None:
    """The file that torch.load was reading when `error` was raised; torch's messages do not name it."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        if frame.f_code is torch.load.__code__:
            return frame.f_locals["f"]
    return None


def _reason(error: BaseException) -> str:
    foreign = re.search(r"GLOBAL (\S+)", str(error)) or re.search(r"got <class '(\S+)'>", str(error))
    if foreign:
        return f"it holds {foreign[1]} as a pickled object, which could run code from the file"
    return f"the file is damaged ({type(error).__name__}: {str(error).strip().splitlines()[0]})"
