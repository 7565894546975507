# What setup.sh and setup_upstream.sh have in common: a virtual environment with its log, its lock and its stamp, and
# LLaVA's source distribution. Sourced by them, with these set: name (starts every line that is printed), root (of the
# repository), venv (the folder), constraints (a file of versions for pip).
# shellcheck shell=bash disable=SC2154
llava_version=1.2.2.post1
llava_sha256=fe41fe4fb5eec2fd549c6ff32628ecd3cc84abddc06f53a0d425750738da7157
llava_sdist=$root/.venv/src/llava-torch-$llava_version.tar.gz
python=$venv/bin/python
log=$venv/setup.log
stamp=$venv/setup.stamp
export PIP_DISABLE_PIP_VERSION_CHECK=1
SECONDS=0

# The versions of a stack into a file: constraints.txt, or that with the pins of constraints-$1.txt in place of its own.
stack_constraints() {
    [[ -z $1 || -f constraints-$1.txt ]] || fail "STACK=$1: there is no constraints-$1.txt; leave STACK out, or give 4.57"
    local own
    own=$(sed -n 's/^\([A-Za-z0-9_.-]*\)==.*/\1/p' ${1:+"constraints-$1.txt"} </dev/null)
    own=${own//$'\n'/|}
    grep -vE "^(${own:-#})==" constraints.txt
    [[ -z $1 ]] || cat "constraints-$1.txt"
}

# Writes them to $constraints with torch $1 in place of its own.
lock_torch() {
    local pins
    pins=$(stack_constraints "$stack")
    # Another torch names a sympy of its own: 2.6 takes 1.13.1 alone.
    grep -qx "torch==${1%%+*}" <<<"$pins" || pins=$(grep -v '^sympy==' <<<"$pins")
    sed "s/^torch==.*/torch==$1/" <<<"$pins" >"$constraints"
}

say() { printf '%s: %s\n' "$name" "$*"; }
fail() { printf '%s: error: %s\n' "$name" "$*" >&2; exit 1; }

# Output goes to the log; a failure shows the log's end and one line with the remedy.
logged() {
    local what=$1
    shift
    "$@" >>"$log" 2>&1 || { tail -n 15 "$log" >&2; fail "$what failed (whole log: $log). If the network or a proxy \
was the reason, run this again: what is done already is kept."; }
}

# By uv where it is installed, several times as quick as pip; it does not see a torch of the system (Debian's), which a
# .venv made with --system-site-packages shows. LLaVA's own pins contradict what is installed here, so conflicts get no
# warning.
pip_install() {
    if command -v uv >/dev/null && ! grep -qs '^include-system-site-packages = true' "$venv/pyvenv.cfg"; then
        (pip_settings_for_uv && exec uv pip install --python "$python" --constraint "$constraints" "$@")
    else
        "$python" -m pip install --no-warn-conflicts --constraint "$constraints" "$@"
    fi
}
install() { local what=$1; shift; logged "$what" pip_install "$@"; }

# uv does not read pip's configuration: indexes, folders of wheels and the certificate are handed over.
pip_settings_for_uv() {
    export UV_INDEX_STRATEGY=unsafe-best-match # as pip does: the best version that any of the indexes has
    local settings
    settings=$("$python" -m pip config list | "$python" -c '
import ast, shlex, sys

names = {"index-url": "UV_DEFAULT_INDEX", "extra-index-url": "UV_INDEX", "find-links": "UV_FIND_LINKS", "cert": "SSL_CERT_FILE"}
for key, _, value in (line.partition("=") for line in sys.stdin):
    name = names.pop(key.rpartition(".")[2], None)  # the first one counts: environment variables come before files
    if name:
        separator = "," if name == "UV_FIND_LINKS" else " "
        print(f"export {name}=${{{name}:-{shlex.quote(separator.join(ast.literal_eval(value).split()))}}}")')
    eval "$settings"
}

# LLaVA's source distribution, checked against its hash before anything in it runs; kept for the next time.
fetch_llava() {
    sha256sum --check --status <<<"$llava_sha256  $llava_sdist" 2>/dev/null && return
    local folder=${llava_sdist%/*}
    mkdir -p "$folder"
    rm -f "$llava_sdist"
    echo "llava-torch==$llava_version --hash=sha256:$llava_sha256" >"$folder/llava.txt"
    logged "downloading LLaVA" "$python" -m pip download --require-hashes --no-deps --no-build-isolation \
        --no-binary llava-torch --dest "$folder" --requirement "$folder/llava.txt"
}

# The version pip knows: PyPI's CUDA build is 2.13.0 there and calls itself 2.13.0+cu130 when it is imported.
torch_version() {
    "$python" -c 'import torch; from importlib.metadata import version; print(version("torch"))' 2>/dev/null || true
}

# Ends the script if the environment was finished with this fingerprint; else starts a new log.
begin() {
    if command -v flock >/dev/null; then # two set-ups at once would spoil each other's work
        exec 9>"$venv/setup.lock"
        flock 9
    fi
    wanted=$(fingerprint)
    if [[ -x $python && -f $stamp && $(<"$stamp") == "$wanted" ]]; then
        say "nothing to do (${venv##*/} is up to date)"
        exit 0
    fi
    rm -f "$stamp"
    : >"$log"
}

finish() {
    printf '%s\n' "$wanted" >"$stamp"
    say "done in $SECONDS s: $("$python" -c 'import sys, torch; print(f"Python {sys.version.split()[0]}, torch {torch.__version__}")')"
}
