"""Each of LLaVA's entry points can be imported after set-up."""

import subprocess
import sys

# Modules that need packages which LLaVA does not declare, so that they do not start in its own environment either.
UNDECLARED = {
    "llava.eval.eval_gpt_review": "openai",
    "llava.eval.eval_gpt_review_bench": "openai",
    "llava.eval.eval_gpt_review_visual": "openai",
    "llava.eval.qa_baseline_gpt35": "openai",
    "llava.serve.sglang_worker": "sglang",
    "llava.train.llama_flash_attn_monkey_patch": "flash_attn",
}
# LLaVA's servers redirect sys.stdout when they are imported.
IMPORT_ALL = """
import importlib, pathlib, sys
import llava
root = pathlib.Path(llava.__file__).parent
for path in sorted(path for folder in ("eval", "serve", "train") for path in (root / folder).glob("*.py")):
    module = f"llava.{path.parent.name}.{path.stem}"
    try:
        importlib.import_module(module)
        missing = ""
    except ModuleNotFoundError as error:
        missing = error.name
    print(module, missing, file=sys.__stdout__)
"""


def test_every_entry_point_can_be_imported(tmp_path):
    done = subprocess.run([sys.executable, "-c", IMPORT_ALL], cwd=tmp_path, capture_output=True, text=True, check=True)
    found = dict(line.split(" ", 1) for line in done.stdout.splitlines())
    assert {"llava.eval.model_vqa_loader", "llava.serve.cli", "llava.train.train_mem"} <= set(found)
    assert {module: missing for module, missing in found.items() if missing}.items() <= UNDECLARED.items()
