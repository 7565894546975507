#!/usr/bin/env bash
# The README's two commands on a machine that has nothing: a Debian made by debootstrap in a folder, removed at the end.
#
#   sudo bash scripts/check_fresh.sh
#
# Runs `bash scripts/demo.sh --preset smoke` and `bash scripts/test.sh` on a few tests there, on a copy of this checkout.
# Needs root, debootstrap (apt-get install debootstrap), Debian's and PyPI's servers, and 12 GB of disk where PyPI has no
# small torch for that Debian's Python. Part of no other check.
#
# Environment:
#   SUITE=trixie       the Debian (13, with Python 3.13)
#   MIRROR=http://...  its packages
#   TESTS="..."        what pytest is given
#   TMPDIR=/var/tmp    where the folder is made
# TORCH_VERSION, STACK and pip's variables (PIP_EXTRA_INDEX_URL, ...) are handed over; the file of PIP_CERT is copied.
set -euo pipefail

[[ ${1:-} == --help || ${1:-} == -h ]] && { sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"; exit 0; }

root=$(cd -P -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
tests=${TESTS:-tests/training/test_integration.py tests/model/test_llama_tokenizer.py tests/training/test_finetune.py}
say() { printf 'check_fresh: %4d s: %s\n' "$SECONDS" "$*"; }
fail() { printf 'check_fresh: error: %s\n' "$*" >&2; exit 1; }
[[ $EUID == 0 ]] || fail "needs root, for debootstrap and chroot"
command -v debootstrap >/dev/null || fail "no debootstrap; apt-get install debootstrap"

tree=$(mktemp -d "${TMPDIR:-/var/tmp}/llava-aurora-fresh-XXXXXX")
remove() {
    umount "$tree/proc" "$tree/dev/shm" 2>/dev/null || true
    mountpoint -q "$tree/proc" || rm -rf --one-file-system "$tree"
}
trap remove EXIT

say "Debian ${SUITE:-trixie} in $tree"
debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates "${SUITE:-trixie}" "$tree" \
    "${MIRROR:-http://deb.debian.org/debian}" >"$tree.log" 2>&1 || { tail -n 5 "$tree.log" >&2; fail "debootstrap failed (log: $tree.log)"; }
rm -f "$tree.log"
mount -t proc proc "$tree/proc"
mount -t tmpfs shm "$tree/dev/shm"
cp -L /etc/resolv.conf /etc/hosts "$tree/etc/"
[[ -z ${PIP_CERT:-} ]] || cp -L "$PIP_CERT" "$tree$PIP_CERT"

mkdir "$tree/root/llava_aurora"
(cd "$root" && git ls-files -z --cached --others --exclude-standard | tar --null --files-from=- -c) |
    tar -x -C "$tree/root/llava_aurora" --no-same-owner

inside() {
    say "$*"
    env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 \
        $(env | grep -E '^(PIP_|TORCH_VERSION=|STACK=)' || true) chroot "$tree" bash -c "cd /root/llava_aurora && $*"
}
inside "python3 --version && grep PRETTY_NAME /etc/os-release"
inside "bash scripts/demo.sh --preset smoke"
inside "bash scripts/test.sh $tests"
say "both commands ran"
