#!/usr/bin/env bash
# Everything the project wants to know of a GPU, in at most nine minutes and without network; see docs/benchmarks.md.
#
#   bash scripts/gpu_report.sh --out gpu_report [--parts PART ...] [--minutes 9] [--tiny]
#   bash scripts/gpu_report.sh --wheels wheels/ --out gpu_report
#
# --wheels FOLDER: for a machine that has torch but not the rest, and no network: an environment of the folder's wheels,
# LLaVA's and DeepSpeed's among them, over the Python that is there (PYTHON=/path/to/python3). It is made once, in
# FOLDER.env. Without --wheels the Python is that of .venv (scripts/setup.sh), or else python3.
# LLAVA_AURORA_UPSTREAM_PYTHON=.venv-upstream/bin/python also runs unpatched LLaVA (scripts/setup_upstream.sh).
set -euo pipefail

[[ ${1:-} == --help || ${1:-} == -h ]] && { sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"; exit 0; }

root=$(cd -P -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
fail() { printf 'gpu_report: error: %s\n' "$*" >&2; exit 1; }

python=${PYTHON:-${VIRTUAL_ENV:-$root/.venv}/bin/python}
[[ -x $python ]] || python=$(command -v python3) || fail "no Python; name one: PYTHON=/path/to/python3"

if [[ ${1:-} == --wheels ]]; then
    wheels=$(cd -P -- "${2:?--wheels names no folder}" && pwd) || fail "--wheels ${2:-}: no such folder"
    shift 2
    environment=$wheels.env
    if [[ ! -f $environment/complete ]]; then
        compgen -G "$wheels/*.whl" >/dev/null || fail "$wheels: holds no .whl file"
        "$python" -m venv --without-pip --clear "$environment"
        # In front of what the Python has, which is seen through.
        below='import site, sys, sysconfig; print(sysconfig.get_path("purelib"))'
        printf 'import site; site.addsitedir("%s")\n' "$("$python" -c "$below")" >"$("$environment/bin/python" -c "$below")/below.pth"
        "$python" -m pip --python "$environment/bin/python" install --quiet --no-index --no-deps --force-reinstall \
            "$wheels"/*.whl || fail "the wheels in $wheels cannot be installed; pip says why above"
        "$python" -m pip --python "$environment/bin/python" install --quiet --no-index --no-deps --no-build-isolation \
            --editable "$root" || fail "$root cannot be installed (it needs setuptools); pip says why above"
        "$environment/bin/python" -m llava_aurora.cli --quiet patch --source "$("$environment/bin/python" -c "$below" | tail -n 1)" \
            || fail "LLaVA in $environment cannot be patched: the folder needs its published wheel, llava-torch 1.2.2.post1"
        touch "$environment/complete"
    fi
    python=$environment/bin/python
fi
"$python" -c 'import torch' 2>/dev/null || fail "$python has no torch that can be imported: bash scripts/setup.sh, or --wheels"
missing=$("$python" -c '
from importlib.util import find_spec
names = "transformers deepspeed accelerate peft llava sentencepiece safetensors typer rich pyarrow yaml PIL scipy"
print(*(name for name in names.split() if find_spec(name) is None))')
[[ -z $missing ]] || fail "$python lacks $missing: bash scripts/setup.sh, or wheels of them in the folder of --wheels"
export PATH=${python%/*}:$PATH VIRTUAL_ENV=${python%/bin/*}
exec "$python" "$root/benchmarks/gpu_report.py" "$@"
