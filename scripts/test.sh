#!/usr/bin/env bash
# Sets everything up, then runs every check: lint, format, types, tests. Arguments go to pytest:
#
#   bash scripts/test.sh                      everything but the comparison with unpatched LLaVA
#   bash scripts/test.sh --with-upstream      that too, and what two stacks of libraries must agree in on the other one;
#                                             sets up unpatched LLaVA in .venv-upstream and the other stack in .venv-4.57 first
#   bash scripts/test.sh -m "not deepspeed"   without the runs on two processes
#   bash scripts/test.sh tests/cli/test_cli.py -k help
#   bash scripts/test.sh -n 0 --pdb           in one process, with a debugger; otherwise in one for each core, up to four
set -euo pipefail

[[ ${1:-} == --help ]] && { sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"; exit 0; }

root=$(cd -P -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
other=4.57 # the stack beside the one in .venv
with_upstream=
[[ ${1:-} == --with-upstream ]] && { with_upstream=yes; shift; }
bash scripts/setup.sh
upstream=
if [[ -n $with_upstream ]]; then
    # while the code is checked
    (bash scripts/setup_upstream.sh && bash scripts/setup_stack.sh "$other") &
    upstream=$!
    trap 'wait "$upstream"' EXIT # also when a check fails
    export LLAVA_AURORA_UPSTREAM_PYTHON=$root/.venv-upstream/bin/python
    export LLAVA_AURORA_OTHER_PYTHON=$root/.venv-$other/bin/python
fi

export PATH=$root/.venv/bin:$PATH
# Two processes on the CPU stand for the GPUs; nothing is fetched from the network; threads do not outnumber the cores.
export DS_ACCELERATOR=cpu TORCH_EXTENSIONS_DIR=${TORCH_EXTENSIONS_DIR:-$root/.venv/torch_extensions}
export HF_HUB_OFFLINE=1 TRANSFORMERS_OFFLINE=1 HF_HUB_DISABLE_TELEMETRY=1 WANDB_MODE=disabled
# Every process loads bitsandbytes, which would load torch's compiler, for seconds; no test compiles.
export TORCHDYNAMO_DISABLE=1
export TOKENIZERS_PARALLELISM=false OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} MPLBACKEND=Agg PYTHONUNBUFFERED=1

ruff check .
ruff format --check .
mypy
[[ -z $upstream ]] || wait "$upstream"
# The tests of a file share what they have made, so they stay in one process; tests/conftest.py says which files begin.
run_tests() { "$1" -m pytest --numprocesses logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder "${@:2}"; }
if [[ -n $with_upstream && $# == 0 ]]; then # on the other stack: ids, losses, and the exchange with unpatched LLaVA
    # (in one process each, as its environment has no launcher of its own)
    run_tests ".venv-$other/bin/python" -m "not deepspeed" tests/test_compatibility.py tests/model/test_llama_tokenizer.py \
        tests/training/test_upstream_parity.py tests/with_upstream
fi
run_tests python "$@"
