"""Trains by unpatched LLaVA, with its own flags.

    python -I train_upstream.py --seed 42 …

Executed by the Python of .venv-upstream. LLaVA draws LoRA's first weights before the Trainer seeds; our entry point
seeds before that, and so does this one. DeepSpeed is not there: LLaVA imports two names of it to save LoRA weights, but
uses them for weights under ZeRO-3 alone.
"""

import sys
from types import ModuleType

from llava.train import train
from transformers import set_seed

PARTITION = "deepspeed.runtime.zero.partition_parameters"

for name in ("deepspeed", "deepspeed.runtime", "deepspeed.runtime.zero", PARTITION):
    sys.modules[name] = ModuleType(name)
sys.modules["deepspeed"].zero = sys.modules[PARTITION].ZeroParamStatus = None
set_seed(int(sys.argv[sys.argv.index("--seed") + 1]))
train.train(attn_implementation="sdpa")
