#!/usr/bin/env bash
# Sets everything up, then runs the main job on the embedded default: `bash scripts/demo.sh [--preset smoke] [--out DIR]`.
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
bash "$root/scripts/setup.sh"
exec "$root/.venv/bin/llava-aurora" demo "$@"
