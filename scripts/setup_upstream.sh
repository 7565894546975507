#!/usr/bin/env bash
# Sets up LLaVA as it was published in .venv-upstream: unpatched, on the transformers it was made for. The tests in
# tests/with_upstream run it to compare. Run it again at any time: it is quick when nothing changed.
#
#   bash scripts/setup_upstream.sh
#
# Needs a .venv made by scripts/setup.sh: Python and torch are the same as there. All else is in
# tests/with_upstream/requirements.txt, whose packages have wheels for Python 3.10, 3.11 and 3.12.
# pip's own settings (PIP_INDEX_URL, PIP_FIND_LINKS, proxies, ...) hold as always; a torch that came from elsewhere than
# PyPI is looked for there again: PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu
set -euo pipefail

[[ ${1:-} == --help || ${1:-} == -h ]] && { sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"; exit 0; }

root=$(cd -P -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
name=setup_upstream
venv=$root/.venv-upstream
constraints=$root/tests/with_upstream/requirements.txt
source scripts/environment.sh

python_of() { sed -n 's/^version *= *//p' "$1/pyvenv.cfg" 2>/dev/null || true; }

make_venv() {
    if [[ ! -e $python ]]; then
        say "Python environment from .venv's Python"
        logged "making $venv" .venv/bin/python -m venv "$venv"
    fi
    [[ $(python_of "$venv") == $(python_of .venv) ]] ||
        fail "$venv was made with another Python than .venv; remove the folder and run this again"
}

install_torch() {
    [[ $(torch_version) == "$torch" ]] && return
    say "torch $torch, as in .venv (the largest download)"
    install "installing torch $torch" "torch==$torch"
}

# Without their dependencies: LLaVA's own pins are older than what it runs on, and every version is in the list.
install_llava() {
    say "LLaVA, unpatched, and its transformers"
    install "installing the build tools" setuptools wheel
    fetch_llava
    install "installing LLaVA" --no-deps --no-build-isolation --requirement "$constraints" "$llava_sdist"
}

verify() {
    [[ $(torch_version) == "$torch" ]] || fail "torch $torch was asked for, $(torch_version) can be imported; see $log"
    (cd / && logged "importing LLaVA's loader" "$python" -I -c 'import llava.model.builder, peft')
}

# All that decides what is installed. A change in any of it runs the steps again.
fingerprint() {
    {
        printf '%s\n' "$root" "$torch" "$(python_of .venv)"
        cat scripts/setup_upstream.sh scripts/environment.sh "$constraints"
    } | sha256sum
}

[[ -f .venv/setup.stamp ]] || fail "there is no finished .venv to compare with; run bash scripts/setup.sh first"
torch=$(sed -n 's/^torch==//p' .venv/constraints.txt)

mkdir -p "$venv"
begin
make_venv
install_torch
install_llava
verify
finish
