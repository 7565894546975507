# What setup.sh and setup_upstream.sh have in common: a virtual environment with its log, its lock and its stamp.
# Sourced by them, with these set: name (starts every line that is printed), venv (the folder), constraints (a file of
# versions for pip).
# shellcheck shell=bash disable=SC2154
python=$venv/bin/python
log=$venv/setup.log
stamp=$venv/setup.stamp
export PIP_DISABLE_PIP_VERSION_CHECK=1
SECONDS=0

say() { printf '%s: %s\n' "$name" "$*"; }
fail() { printf '%s: error: %s\n' "$name" "$*" >&2; exit 1; }

# Output goes to the log; a failure shows the log's end and one line with the remedy.
logged() {
    local what=$1
    shift
    "$@" >>"$log" 2>&1 || { tail -n 15 "$log" >&2; fail "$what failed (whole log: $log). If the network or a proxy \
was the reason, run this again: what is done already is kept."; }
}

# Conflicts are not worth a warning: LLaVA's own pins contradict all that is installed here, and are meant to.
pip_install() { "$python" -m pip install --no-warn-conflicts --constraint "$constraints" "$@"; }
install() { local what=$1; shift; logged "$what" pip_install "$@"; }

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
