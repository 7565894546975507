#!/usr/bin/env bash
# Bash and Python at once, because `deepspeed FILE` and `torchrun FILE` run FILE with Python on every rank. To bash, the
# next line is the command `:`, which does nothing; to Python it opens a string, which ends behind the bash part. The
# Python part is a here-document to bash, whose last line is a comment to Python.
''':'
# LLaVA-1.5's first stage: deepspeed scripts/pretrain_aurora.sh --data_path ... --image_folder ...
#    or: bash scripts/pretrain_aurora.sh [the same]       (NUM_GPUS=2 chooses the ranks)
set -euo pipefail
source "$(dirname -- "${BASH_SOURCE[0]}")/launch.sh"
launch "${BASH_SOURCE[0]}" "$@"
: <<'# end of the Python part'
'''
from llava_aurora.training.train import main

main(__file__, recipe="pretrain")
# end of the Python part
