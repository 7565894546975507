#!/usr/bin/env bash
# Sets up another stack beside .venv, for the tests that compare the two: `bash scripts/setup_stack.sh 4.57` makes
# .venv-4.57. It has the packages that constraints-4.57.txt names; all others, LLaVA and this package too, are those of
# .venv, which it shows through. Run it again at any time: it is quick when nothing changed.
#
# Needs a .venv made by scripts/setup.sh. To work with that stack alone: STACK=4.57 bash scripts/setup.sh
set -euo pipefail

[[ ${1:-} == --help || ${1:-} == -h ]] && { sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"; exit 0; }

root=$(cd -P -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
name=setup_stack
stack=${1:?which stack? 4.57}
venv=$root/.venv-$stack
constraints=$root/constraints-$stack.txt
source scripts/environment.sh
[[ -f $constraints ]] || fail "there is no ${constraints##*/}"
[[ -f .venv/setup.stamp ]] || fail "there is no finished .venv to add to; run bash scripts/setup.sh first"

make_venv() {
    if [[ ! -e $python ]]; then
        say "Python environment over .venv's"
        logged "making $venv" .venv/bin/python -m venv "$venv"
    fi
    # Behind the environment's own packages, with the .pth files there (this package's).
    local below='import sysconfig; print(sysconfig.get_path("purelib"))'
    printf 'import site; site.addsitedir("%s")\n' "$(.venv/bin/python -c "$below")" >"$("$python" -c "$below")/below.pth"
}

# What setup.stamp stands for has changed if anything did that .venv has.
fingerprint() { { printf '%s\n' "$root"; cat .venv/setup.stamp scripts/setup_stack.sh scripts/environment.sh "$constraints"; } | sha256sum; }

mkdir -p "$venv"
begin
make_venv
say "$(grep -c == "$constraints") packages of the stack $stack"
install "installing the packages" --no-deps --requirement "$constraints"
(cd / && logged "importing LLaVA's training code" "$python" -c 'import llava.train.train, llava.model.builder')
finish
