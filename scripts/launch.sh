# Sourced by the training scripts. `launch FILE FLAGS...` runs FILE, whose other half is Python, on every rank, and does
# not return. NUM_GPUS=2 chooses the ranks; default: all GPUs of this machine, or one process on the CPU. They meet at
# MASTER_PORT; default: a free one, so that several runs have room on one machine.
launch() {
    local file=$1 root bin gpus port
    shift
    root=$(cd -P -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
    bin=${VIRTUAL_ENV:-$root/.venv}/bin
    if [[ ! -x $bin/deepspeed ]]; then
        echo "error: $bin/deepspeed is missing; run \`bash scripts/setup.sh\`" >&2
        exit 1
    fi
    export PATH=$bin:$PATH
    case " $* " in
        "  " | *" -h "* | *" --help "*) exec python "$file" "$@" ;; # one process answers
    esac
    read -r gpus port < <(python -c '
import torch
from llava_aurora.training.ports import free_port
print(torch.cuda.device_count(), free_port())')
    local count=(--num_gpus "${NUM_GPUS:-$gpus}")
    if ((gpus == 0)); then
        export DS_ACCELERATOR=${DS_ACCELERATOR:-cpu}
        count=(--num_gpus "${NUM_GPUS:-1}")
    elif [[ -z ${NUM_GPUS:-} && ${CUDA_VISIBLE_DEVICES:-} =~ ^[0-9]+(,[0-9]+)*$ ]]; then
        count=() # given a number, DeepSpeed takes the machine's first GPUs instead of those
    fi
    exec deepspeed "${count[@]}" --master_port "${MASTER_PORT:-$port}" "$file" "$@"
}
