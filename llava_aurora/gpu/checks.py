"""`llava-aurora doctor --gpu`: what a training run needs of a GPU, tried out in at most three minutes.

Each check is a process of its own with a time limit, so that one that crashes or hangs is a line like every other:

    python -m llava_aurora.gpu.checks --work FOLDER [--tiny]      # all, as doctor runs them
    python -m llava_aurora.gpu.checks vqvae --work FOLDER         # one

--tiny: the same in a size for CPUs, which shows that the checks work. FOLDER/trained is the model that was trained.
"""

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from llava_aurora.errors import AuroraError
from llava_aurora.files import read_json, write_json
from llava_aurora.gpu.card import communication, device
from llava_aurora.gpu.devices import remedy_for, why_no_cuda
from llava_aurora.gpu.models import generation, vqvae
from llava_aurora.gpu.setting import Setting, Verdict
from llava_aurora.gpu.training import layers, other_kernel, training

LONGEST = 180  # seconds of all checks together
PATIENCE = 5  # times as long for --tiny, on processors that others use too

# By name: the check, its limit in seconds, and the check without which it cannot be made.
CHECKS: dict[str, tuple[Callable[[Setting], Iterator[Verdict]], int, str | None]] = {
    "device": (device, 60, None),
    "communication": (communication, 60, None),
    "vqvae": (vqvae, 60, None),
    "layers": (layers, 90, None),
    "training": (training, 120, "layers"),
    "generation": (generation, 90, "training"),
    "other_kernel": (other_kernel, 120, "training"),
}


def check_gpu(*, work: Path | None = None, tiny: bool = False, report: Callable[[Verdict], None]) -> list[Verdict]:
    """Runs all checks.

    Args:
        work: where they write, kept; a temporary folder if left out, of which the logs stay if a check fails.
        tiny: in a size for CPUs, and also without a GPU.
        report: is called with each verdict as it is reached.
    """
    verdicts: list[Verdict] = []

    def reached(*more: Verdict) -> None:
        for verdict in more:
            verdicts.append(verdict)
            report(verdict)

    if not tiny and (reason := why_no_cuda()):
        reached(Verdict("device", "failed", f"no CUDA device: {reason[0]}", reason[1]))
        return verdicts
    if work is None:
        work = Path(tempfile.mkdtemp(prefix="llava-aurora-gpu-"))
        try:
            verdicts = check_gpu(work=work, tiny=tiny, report=report)
        finally:
            for folder in filter(Path.is_dir, list(work.iterdir())):
                shutil.rmtree(folder)  # gigabytes
        if all(verdict.state != "failed" for verdict in verdicts):
            shutil.rmtree(work)
        return verdicts
    work.mkdir(parents=True, exist_ok=True)
    patience = PATIENCE if tiny else 1
    ends, failed = time.monotonic() + LONGEST * patience, set[str]()
    for name, (_, limit, needed) in CHECKS.items():
        left = min(limit * patience, ends - time.monotonic())
        if needed in failed:
            found = [Verdict(name, "skipped", f"needs what {needed} makes")]
        elif left < 5:
            found = [Verdict(name, "skipped", f"the {LONGEST} s of all checks are over")]
        else:
            found = _apart(name, Setting(work, tiny), limit=left)
        if any(verdict.state in ("failed", "skipped") for verdict in found[:1]) and name != "device":
            failed.add(name)
        reached(*found)
    return verdicts


def _apart(name: str, setting: Setting, *, limit: float) -> list[Verdict]:
    """One check in a process of its own, in a group that ends with it; its output goes to a log."""
    written, log = setting.work / f"{name}.verdicts.json", setting.work / f"{name}.log"
    written.unlink(missing_ok=True)
    words = [name, "--work", str(setting.work), *(["--tiny"] if setting.tiny else [])]
    with log.open("w", encoding="utf-8") as output:
        command = [sys.executable, "-m", "llava_aurora.gpu.checks", *words]
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            code = process.wait(limit)
        except subprocess.TimeoutExpired:
            code = None
        except BaseException:
            _end(process)
            raise
        _end(process)
    if written.is_file():
        return [Verdict(**each) for each in read_json(written, what="verdicts")]
    said = log.read_text(encoding="utf-8", errors="replace")
    if code is None:
        how = remedy_for("nccl") if name == "communication" else "a busy or slow machine, or a hang: see the log"
        return [Verdict(name, "failed", f"not done in {limit:.0f} s", f"{how} ({log})")]
    lines = [line.strip() for line in said.splitlines() if line.strip()] or ["no output"]
    error = next((line for line in reversed(lines) if re.match(r"[\w.]*(Error|Exception)\b", line)), lines[-1])
    ended = f"ended by {signal.Signals(-code).name}: " if code < 0 else ""
    if code == -signal.SIGKILL:
        return [Verdict(name, "failed", f"{ended}{error}", "the machine's memory is full: free -h")]
    return [Verdict(name, "failed", f"{ended}{error[:300]}", remedy_for(said[-20_000:]) or f"the log: {log}")]


def _end(process: subprocess.Popen[Any]) -> None:
    """Ends what is left of a check, the ranks that it started among it."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("check", nargs="?", choices=list(CHECKS), help="this one alone, in this process")
    parser.add_argument("--work", type=Path, required=True, help="folder of what is made, kept")
    parser.add_argument("--tiny", action="store_true", help="in a size for CPUs")
    options = parser.parse_args()
    if options.check is None:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that a check that runs ends too
        found = check_gpu(work=options.work, tiny=options.tiny, report=lambda verdict: print(verdict, flush=True))
        write_json(options.work / "verdicts.json", [asdict(verdict) for verdict in found], indent=1)
        print(json.dumps({"verdicts": [asdict(verdict) for verdict in found]}))
        sys.exit(any(verdict.state == "failed" for verdict in found))
    try:
        check = CHECKS[options.check][0]
        found = list(check(Setting(options.work, options.tiny)))
    except AuroraError as error:
        sys.exit(f"{type(error).__name__}: {error}")
    write_json(options.work / f"{options.check}.verdicts.json", [asdict(verdict) for verdict in found])


if __name__ == "__main__":
    main()
