"""The benchmark of starting runs; that help is there without torch is what it says."""

import json
import sys


def test_help_comes_without_torch(start):
    run = start(sys.executable, "scripts/benchmark_startup.py", "--rounds", 1)
    assert run.code == 0, run.output[-3000:]
    starts = json.loads(run.output.splitlines()[-1])["starts"]
    torch = {name: each["imports_torch"] for name, each in starts.items()}
    assert torch == {
        "import llava_aurora": False,
        "llava-aurora --help": False,
        "llava-aurora ask --help": False,
        "import torch": True,
        "import llava.train.train": True,
    }
