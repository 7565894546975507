#!/usr/bin/env bash
# Bash and Python at once, because `deepspeed FILE` runs FILE with Python on every rank. To bash, the next line is the
# command `:`, which does nothing; to Python it opens a string, which ends behind the bash part. The Python part is a
# here-document to bash, whose last line is a comment to Python.
''':' "$@"
# Usage: deepspeed scripts/finetune_aurora.sh [any LLaVA training flag] [our flags]
#    or: bash scripts/finetune_aurora.sh [the same]       (NUM_GPUS=2 chooses the ranks; default: all GPUs, or one CPU)
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
bin="${VIRTUAL_ENV:-$root/.venv}/bin"
if [ ! -x "$bin/deepspeed" ]; then
    echo "error: $bin/deepspeed is missing; run \`bash scripts/setup.sh\`" >&2
    exit 1
fi
export PATH="$bin:$PATH"
if [ -z "${NUM_GPUS:-}" ]; then
    NUM_GPUS="$("$bin/python" -c 'import torch; print(max(1, torch.cuda.device_count()))')"
fi
if ! "$bin/python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
    export DS_ACCELERATOR="${DS_ACCELERATOR:-cpu}"
fi
exec deepspeed --num_gpus "$NUM_GPUS" "${BASH_SOURCE[0]}" "$@"
: <<'# end of the Python part'
'''
from llava_aurora.training.train import main

main()
# end of the Python part
