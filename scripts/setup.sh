#!/usr/bin/env bash
# Sets up everything in .venv at the root of the repository. Run it again at any time: it is quick when nothing changed.
#
#   bash scripts/setup.sh
#
# Needs Python 3.10 to 3.14 with its venv module; on Debian and Ubuntu: apt-get install python3-venv
# Uses uv where it is installed (pip install uv), which is several times as quick as pip.
# DeepSpeed compiles an optimizer where it is offloaded to the CPU; that also needs: apt-get install g++ python3-dev
#
# Environment:
#   STACK=4.57                   transformers 4.57 (constraints-4.57.txt); otherwise 5.24, for which Python 3.10 is too old
#   PYTHON=python3.12            the Python to build on; otherwise the first of 3.11, 3.12, 3.13, 3.14, 3.10 that is found
#   TORCH_VERSION=2.13.0         another torch; one that is in .venv already is kept unless this names another
#   LLAVA_SOURCE=/path/to/LLaVA  a checkout of LLaVA's main branch or of 1.2.2.post1 instead of its source distribution;
#                                it is copied, not changed
# pip's own settings (PIP_INDEX_URL, PIP_FIND_LINKS, proxies, ...) hold as always. Without a GPU, the much smaller CPU
# build of torch is taken where pip finds one: PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu
set -euo pipefail

[[ ${1:-} == --help || ${1:-} == -h ]] && { sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"; exit 0; }

root=$(cd -P -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
name=setup
venv=$root/.venv
constraints=$venv/constraints.txt
source scripts/environment.sh

stack=${STACK:-}

suits() { # is this command a Python that the dependencies support?
    "$1" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 14))' 2>/dev/null
}

find_python() {
    if [[ -n ${PYTHON:-} ]]; then
        suits "$PYTHON" || fail "PYTHON=$PYTHON is no Python 3.10 to 3.14"
        echo "$PYTHON"
        return
    fi
    for candidate in python3.11 python3.12 python3.13 python3.14 python3.10 python3 python; do
        if suits "$candidate"; then
            echo "$candidate"
            return
        fi
    done
    fail "no Python 3.10 to 3.14 found; install one (apt-get install python3 python3-venv) or name it: PYTHON=/path/to/python3.11"
}

check_patches() { # whether they fit LLAVA_SOURCE, before anything is downloaded
    local base
    base=$(find_python)
    "$base" - "$LLAVA_SOURCE" <<'END' || fail "LLAVA_SOURCE=$LLAVA_SOURCE cannot be patched"
import sys

from llava_aurora import AuroraError, patch_queue

try:
    patch_queue.check(sys.argv[1])
except AuroraError as error:
    sys.exit(str(error))
END
}

make_venv() {
    if [[ ! -e $python ]]; then
        local base
        base=$(find_python)
        "$base" -c 'import ensurepip, venv' 2>/dev/null || fail "$base has no venv module; apt-get install python3-venv"
        say "Python environment from $base"
        logged "making $venv" "$base" -m venv "$venv"
    fi
    suits "$python" || fail "$venv was made with another Python than 3.10 to 3.14; remove the folder and run this again"
    [[ -z ${PYTHON:-} || $("$PYTHON" -c 'import sys; print(sys.version_info[:2])') == \
        $("$python" -c 'import sys; print(sys.version_info[:2])') ]] ||
        fail "$venv was made with another Python than PYTHON=$PYTHON; remove the folder and run this again"
    if [[ -z $stack ]] && ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
        stack=4.57
        say "transformers 5 needs Python 3.11; STACK=4.57 it is"
    fi
}

install_torch() {
    local have want=${TORCH_VERSION:-}
    have=$(torch_version)
    if [[ -z $have || ( -n $want && ${have%%+*} != "${want%%+*}" ) ]]; then
        want=${want:-$(sed -n 's/^torch==//p' constraints.txt)}
        say "torch $want (the largest download)"
        lock_torch "$want"
        if [[ $want == *+* ]] || command -v nvidia-smi >/dev/null ||
            ! pip_install "torch==$want+cpu" >>"$log" 2>&1; then
            command -v nvidia-smi >/dev/null || say "no CPU build found; PyPI's brings CUDA libraries (2.5 GB). For a \
small one: PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu, or TORCH_VERSION for another release"
            install "installing torch $want" "torch==$want"
        fi
        have=$(torch_version)
        [[ -n $have ]] || fail "torch $want was installed but cannot be imported; try: $python -c 'import torch'"
    fi
    # From here on pip may not replace it, so that no other package brings another build.
    lock_torch "$have"
}

install_dependencies() {
    say "DeepSpeed, transformers and this package"
    install "installing the build tools" pip setuptools wheel ninja packaging
    # With a GPU and no nvcc its set-up would refuse, for operators that are compiled when they are first used, if ever.
    DS_ACCELERATOR=cpu install "installing DeepSpeed" --no-build-isolation deepspeed
    install "installing llava-aurora" --no-build-isolation --editable "$root[demo,dev]"
}

install_llava() {
    local source=$venv/src/llava
    rm -rf "$source"
    mkdir -p "$source"
    if [[ -n ${LLAVA_SOURCE:-} ]]; then
        say "LLaVA from $LLAVA_SOURCE, patched"
        cp -R "$LLAVA_SOURCE"/{llava,pyproject.toml,README.md,LICENSE} "$source"
    else
        say "LLaVA $llava_version, patched"
        fetch_llava
        tar -xzf "$llava_sdist" -C "$source" --strip-components=1
    fi
    "$python" -m llava_aurora.cli patch --source "$source" >>"$log" || fail "LLaVA could not be patched"
    install "installing LLaVA" --no-deps --no-build-isolation --force-reinstall "$source"
}

verify() {
    local have
    have=$(torch_version)
    [[ torch==$have == "$(grep '^torch==' "$constraints")" ]] || fail "torch was replaced by $have while other packages were installed"
    (cd / && logged "importing LLaVA's training code" "$python" -c 'import llava.train.train, llava.model.builder')
}

# All that decides what is installed. A change in any of it runs the steps again.
fingerprint() {
    {
        printf '%s\n' "$root" "${TORCH_VERSION:-}" "${LLAVA_SOURCE:-}"
        stack_constraints "$stack"
        cat constraints-4.57.txt scripts/setup.sh scripts/environment.sh setup.cfg pyproject.toml llava_aurora/patch_queue.py patches/series patches/*.patch
        [[ -z ${LLAVA_SOURCE:-} ]] || find "$LLAVA_SOURCE/llava" -type f -name '*.py' -exec cat {} + | sort
    } | sha256sum
}

if [[ -n ${LLAVA_SOURCE:-} ]]; then
    LLAVA_SOURCE=$(cd -P -- "$OLDPWD" && cd -P -- "$LLAVA_SOURCE" 2>/dev/null && pwd) || fail "LLAVA_SOURCE: no such folder"
    [[ -f $LLAVA_SOURCE/llava/train/train.py && -f $LLAVA_SOURCE/pyproject.toml ]] || fail "LLAVA_SOURCE=$LLAVA_SOURCE is no checkout of LLaVA"
    check_patches
fi

mkdir -p "$venv/src"
begin
make_venv
install_torch
install_dependencies
install_llava
verify
finish
