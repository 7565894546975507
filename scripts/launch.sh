# Sourced by the training scripts. `launch FILE FLAGS...` runs FILE, whose other half is Python, on every rank, and does
# not return. NUM_GPUS=2 chooses the ranks; default: all GPUs of this machine, or one process on the CPU. A second run on
# the same machine needs another port to meet at: MASTER_PORT=29501 (default: 29500).
launch() {
    local file=$1 root bin gpus
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
    gpus=$(python -c 'import torch; print(torch.cuda.device_count())')
    if ((gpus == 0)); then
        export DS_ACCELERATOR=${DS_ACCELERATOR:-cpu}
        gpus=1
    fi
    exec deepspeed --num_gpus "${NUM_GPUS:-$gpus}" --master_port "${MASTER_PORT:-29500}" "$file" "$@"
}
