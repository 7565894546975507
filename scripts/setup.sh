#!/usr/bin/env bash
# Sets up everything in .venv at the root of the repository. Run it again at any time: it is quick when nothing changed.
#
#   bash scripts/setup.sh
#
# Needs Python 3.10, 3.11 or 3.12 with its venv module, and git; on Debian and Ubuntu: apt-get install git python3-venv
# DeepSpeed compiles an optimizer where it is offloaded to the CPU; that also needs: apt-get install g++ python3-dev
#
# Environment:
#   PYTHON=python3.12            the Python to build on; otherwise the first of 3.11, 3.12, 3.10 that is found
#   TORCH_VERSION=2.13.0         another torch; one that is in .venv already is kept unless this names another
#   LLAVA_SOURCE=/path/to/LLaVA  a checkout of LLaVA 1.2.2.post1 instead of its source distribution; it is copied, not
#                                changed
# pip's own settings (PIP_INDEX_URL, PIP_FIND_LINKS, proxies, ...) hold as always. Without a GPU, the much smaller CPU
# build of torch is taken where pip finds one: PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu
set -euo pipefail

[[ ${1:-} == --help || ${1:-} == -h ]] && { sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"; exit 0; }

root=$(cd -P -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
name=setup
venv=$root/.venv
constraints=$venv/constraints.txt
llava_version=1.2.2.post1
llava_sdist=$venv/src/llava-torch-$llava_version.tar.gz
source scripts/environment.sh

lock_torch() { sed "s/^torch==.*/torch==$1/" constraints.txt >"$constraints"; }

suits() { # is this command a Python that the dependencies support?
    "$1" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null
}

find_python() {
    if [[ -n ${PYTHON:-} ]]; then
        suits "$PYTHON" || fail "PYTHON=$PYTHON is no Python 3.10, 3.11 or 3.12"
        echo "$PYTHON"
        return
    fi
    for candidate in python3.11 python3.12 python3.10 python3 python; do
        if suits "$candidate"; then
            echo "$candidate"
            return
        fi
    done
    fail "no Python 3.10, 3.11 or 3.12 found; install one (apt-get install python3 python3-venv) or name it: PYTHON=/path/to/python3.11"
}

make_venv() {
    if [[ ! -e $python ]]; then
        local base
        base=$(find_python)
        "$base" -c 'import ensurepip, venv' 2>/dev/null || fail "$base has no venv module; apt-get install python3-venv"
        say "Python environment from $base"
        logged "making $venv" "$base" -m venv "$venv"
    fi
    suits "$python" || fail "$venv was made with another Python than 3.10, 3.11 or 3.12; remove the folder and run this again"
    [[ -z ${PYTHON:-} || $("$PYTHON" -c 'import sys; print(sys.version_info[:2])') == \
        $("$python" -c 'import sys; print(sys.version_info[:2])') ]] ||
        fail "$venv was made with another Python than PYTHON=$PYTHON; remove the folder and run this again"
}

install_torch() {
    local have want=${TORCH_VERSION:-}
    have=$(torch_version)
    if [[ -z $have || ( -n $want && ${have%%+*} != "${want%%+*}" ) ]]; then
        want=${want:-$(sed -n 's/^torch==//p' constraints.txt)}
        say "torch $want (the largest download)"
        lock_torch "$want"
        # PyPI's build brings gigabytes of CUDA libraries.
        if [[ $want == *+* ]] || command -v nvidia-smi >/dev/null ||
            ! pip_install "torch==$want+cpu" >>"$log" 2>&1; then
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
    install "installing DeepSpeed" --no-build-isolation deepspeed
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
        [[ -f $llava_sdist ]] || logged "downloading LLaVA" "$python" -m pip download --no-deps --no-build-isolation \
            --no-binary llava-torch --dest "$venv/src" "llava-torch==$llava_version"
        tar -xzf "$llava_sdist" -C "$source" --strip-components=1 ||
            fail "$llava_sdist is damaged; remove it and run this again"
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
        cat scripts/setup.sh scripts/environment.sh setup.cfg pyproject.toml constraints.txt llava_aurora/patch_queue.py patches/series patches/*.patch
        [[ -z ${LLAVA_SOURCE:-} ]] || find "$LLAVA_SOURCE/llava" -type f -name '*.py' -exec cat {} + | sort
    } | sha256sum
}

command -v git >/dev/null || fail "git was not found; apt-get install git"
if [[ -n ${LLAVA_SOURCE:-} ]]; then
    LLAVA_SOURCE=$(cd -P -- "$OLDPWD" && cd -P -- "$LLAVA_SOURCE" 2>/dev/null && pwd) || fail "LLAVA_SOURCE: no such folder"
    [[ -f $LLAVA_SOURCE/llava/train/train.py && -f $LLAVA_SOURCE/pyproject.toml ]] || fail "LLAVA_SOURCE=$LLAVA_SOURCE is no checkout of LLaVA"
fi

mkdir -p "$venv/src"
begin
make_venv
install_torch
install_dependencies
install_llava
verify
finish
