"""All that the project wants to know of a GPU, in parts that are done once: run it again and it goes on where it was.

    bash scripts/gpu_report.sh --out gpu_report                        # 9 minutes at most; without network
    bash scripts/gpu_report.sh --out gpu_report --parts doctor vqvae   # these alone
    bash scripts/gpu_report.sh --out gpu_report --tiny                 # in a size for CPUs, to try it

OUT/report.json, report.md   what was found, after each part
OUT/report.log               what the parts printed
OUT.work/                    models and data, which a later run goes on with

Each part is a process with a time limit of its own. What is missing (a GPU, flash-attn, the environment of unpatched
LLaVA) is named in its place. A run that ends in time exits with 0, or with 1 if a part failed.
"""

import argparse
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from harness import machine, versions

from llava_aurora.evaluation.provenance import commit
from llava_aurora.files import read_json, write_json, write_text
from llava_aurora.gpu.checks import PATIENCE
from llava_aurora.gpu.devices import why_no_cuda

ROOT = Path(__file__).resolve().parents[1]
ARMS = ("direct", "full", "interpolated")
ENOUGH = 20  # seconds without which no part is begun
REMARKS = {"done": "", "stopped": "stopped at its limit; run again to go on", "failed": "failed"}


@dataclass(frozen=True)
class Size:
    """Args: tiny: for a CPU; device; memory: bytes of the GPU; work: folder of models and data."""

    tiny: bool
    device: str
    memory: int
    work: Path

    def model(self, *more: str) -> list[str]:
        """Flags of the benchmarks of training: 1.05 billion weights; fewer on a card below 45 GB."""
        if self.tiny:
            shape = "--width 64 --layers 1 --words 600 --frame 28 --batch 2 --rounds 1"
        else:
            batch, layers = (16 if self.memory > 70e9 else 4), (22 if self.memory > 45e9 else 8)
            shape = f"--bf16 --width 2048 --layers {layers} --frame 336 --batch {batch} --rounds 3"
        return ["--device", self.device, *shape.split(), *more]


Command = list[str] | str  # what is run; or why the part is left out


@dataclass(frozen=True)
class Part:
    """Args: title; limit: seconds; command: what is run; result: a JSON file it leaves, beside its last line."""

    title: str
    limit: int
    command: Callable[[Size], Command]
    result: str = ""


def script(name: str, *flags: object) -> list[str]:
    return [sys.executable, str(ROOT / name), *map(str, flags)]


def doctor(size: Size) -> Command:
    words = ["-m", "llava_aurora.gpu.checks", "--work", str(size.work / "doctor")]
    return [sys.executable, *words, *(["--tiny"] if size.tiny else [])]


def flash(size: Size) -> Command:
    if size.device == "cpu" or importlib.util.find_spec("flash_attn") is None:
        return "flash-attn is not installed, or there is no GPU"
    return [*step("off")(size), "--attention", "flash_attention_2"]


def unpatched(size: Size) -> Command:
    if not os.environ.get("LLAVA_AURORA_UPSTREAM_PYTHON"):
        return "LLAVA_AURORA_UPSTREAM_PYTHON names no Python of unpatched LLaVA (scripts/setup_upstream.sh)"
    return script("benchmarks/unpatched.py", *size.model())


def generation(size: Size) -> Command:
    """On the layers that doctor trained, which write a map of random codes."""
    trained, model = size.work / "doctor" / "trained", size.work / "generating"
    if not (trained / "config.json").is_file():
        return "needs the model that the part doctor trains"
    if not model.is_dir():
        shutil.copytree(trained, model)
        config = read_json(model / "config.json", what="configuration")
        write_json(model / "config.json", {**config, "aurora_spans_in_one_pass": True})  # its speed alone is asked
    if size.tiny:
        counts = "--questions 2 --batch 2 --forced-tokens 4 --max-new-tokens 4 --rounds 1"
    else:
        counts = "--questions 64 --batch 16 64 --forced-tokens 128 --max-new-tokens 104 --rounds 1"
    flags = ["--device", size.device, "--model", model, "--answer-start", "<DEPTH_START>", *counts.split()]
    return script("benchmarks/generation.py", *flags)


def vqvae(size: Size) -> Command:
    counts = "--size demo --maps 4 --batches 2 --rounds 1" if size.tiny else "--maps 256 --batches 32 256 --rounds 5"
    return script("benchmarks/vqvae.py", "--device", size.device, *counts.split())


def packed(size: Size) -> Command:
    counts = "--side 4 --asked 2 --rounds 1" if size.tiny else "--rounds 3"
    return script("benchmarks/packed_queries.py", "--device", size.device, *counts.split())


def study(size: Size) -> Command:
    name = "smoke" if size.tiny else "gpu"
    runs = ["--only", *ARMS, "--seeds", 0]
    return script("experiments/run.py", "--size", name, "--out", size.work / "study", *runs)


def pretraining(size: Size) -> Command:
    flags = ["--scenes", 64, "--steps", 4] if size.tiny else []
    return script("experiments/pretrain_tiny.py", "--out", size.work / "pretraining", "--device", size.device, *flags)


def step(what: str) -> Callable[[Size], Command]:
    return lambda size: script("benchmarks/training_step.py", *size.model("--only", what))


def epoch(size: Size) -> Command:
    return script("benchmarks/curriculum_epoch.py", *size.model("--steps", "2" if size.tiny else "4"))


PARTS = {
    "doctor": Part("installation, memory against the plan, model FLOPs", 200, doctor),
    "step": Part("a training step beside LLaVA's", 110, step("off")),
    "flash": Part("the same with flash-attn", 110, flash),
    "rows": Part("LoRA and new rows beside LoRA and whole matrices", 110, step("tokens")),
    "epoch": Part("records a second in a curriculum", 110, epoch),
    "generation": Part("maps a second, as answers", 130, generation),
    "vqvae": Part("maps a second through the VQ-VAE", 60, vqvae),
    "reconstruction": Part("what the reconstruction loss takes of a step", 110, step("reconstruction")),
    "packed": Part("packed pixel queries", 60, packed),
    "unpatched": Part("a step beside LLaVA as published", 110, unpatched),
    "study": Part(f"arms of the study: {', '.join(ARMS)}", 3600, study, "study/results.json"),
    "pretraining": Part("pretraining of the tiny base", 3600, pretraining),
}


def run_part(part: Part, size: Size, *, seconds: float, log: Path) -> dict[str, Any]:
    """Runs a part for at most so many seconds. Returns its state, what it found, and why it did not if it did not."""
    command = part.command(size)
    if isinstance(command, str):
        return {"state": "skipped", "reason": command}
    started, lines = time.perf_counter(), list[str]()
    environment = {"PYTHONUNBUFFERED": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", **os.environ}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    if size.device == "cpu":
        environment["DS_ACCELERATOR"] = "cpu"
    begins = log.stat().st_size if log.is_file() else 0
    with log.open("a", encoding="utf-8") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, env=environment, cwd=ROOT, start_new_session=True
        )
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            _end(process)
    with log.open(encoding="utf-8", errors="replace") as output:
        output.seek(begins)
        lines = [line.strip() for line in output if line.strip()]
    found = next(filter(None, map(_object, reversed(lines))), None)
    if part.result and (path := size.work / part.result).is_file():
        found = read_json(path, what="results")
    state = {0: "done", None: "stopped"}.get(code, "failed")
    said = ""
    if state == "failed":
        last = next((line for line in reversed(lines) if _object(line) is None), "nothing was printed")
        wrong = [each["name"] for each in (found or {}).get("verdicts", ()) if each["state"] == "failed"]
        said = ", ".join(wrong) or f"{last[:300]} (exit code {code})"
    return {
        "state": state,
        "reason": said or REMARKS[state],
        "seconds": round(time.perf_counter() - started, 1),
        "commit": commit(),
        "command": " ".join(command).replace(f"{ROOT}/", "").replace(sys.executable, "python"),
        "found": found,
    }


def _object(line: str) -> dict[str, Any] | None:
    """A line that is a JSON object."""
    try:
        value = json.loads(line) if line.startswith("{") else None
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Ends a part and all that it started; DeepSpeed's launcher is given time to end its ranks."""
    for how in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, how)
            process.wait(5)
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue


# --- the report -------------------------------------------------------------------------------------------------------


def write_report(out: Path, report: Mapping[str, Any]) -> None:
    """report.json and report.md, each there whole or not at all."""
    write_json(out / "report.json", report, indent=1)
    where = report["machine"]
    title = f"# {where['gpu'] or where['processor']}, {where['cores']} cores"
    lines = [title, "", ", ".join(f"{name} {version}" for name, version in report["versions"].items()), ""]
    rows = [
        {"part": f"{name}: {PARTS[name].title}", "state": each["state"], "s": each.get("seconds"), "": each["reason"]}
        for name, each in report["parts"].items()
    ]
    lines += _table(rows)
    for name, each in report["parts"].items():
        found = each.get("found") or {}
        lines += ["", f"## {name}: {PARTS[name].title}", "", f"    {each['command']}", ""] if found else []
        for verdict in found.get("verdicts", ()):
            lines.append(f"- {verdict['state']}: {verdict['name']}: {verdict['found']}")
            lines[-1] += f" ({verdict['remedy']})" if verdict["remedy"] else ""
        rows = found.get("rows") or found.get("runs") or ([found] if "verdicts" not in found and found else [])
        lines += _table(rows)
    write_text(out / "report.md", "\n".join(lines) + "\n")


def _table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """As Markdown; lists and nested values are in report.json alone."""
    names = dict.fromkeys(name for row in rows for name, value in row.items() if not isinstance(value, list | dict))
    if not names:
        return []
    head = [f"| {' | '.join(name.replace('_', ' ') for name in names)} |", "|---" * len(names) + "|"]
    return head + [f"| {' | '.join(_cell(row.get(name)) for name in names)} |" for row in rows]


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
    return "" if value is None else f"{value:,}" if type(value) is int else re.sub(r"[|\n]", " ", str(value))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the report; one that was stopped goes on")
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS), metavar="PART", help="these")
    parser.add_argument("--minutes", type=float, default=9, help="of this run (default: 9)")
    parser.add_argument("--tiny", action="store_true", help="in a size for CPUs, without a GPU too")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the part that runs ends too
    if not options.tiny and (reason := why_no_cuda()):
        sys.exit(f"error: no CUDA device: {reason[0]}; {reason[1]} (--tiny runs this on a CPU)")
    cuda = torch.cuda.is_available()
    memory = torch.cuda.mem_get_info()[1] if cuda else 0
    work = options.out.absolute().with_name(f"{options.out.absolute().name}.work")
    size = Size(options.tiny, "cuda" if cuda else "cpu", memory, work)
    sys.exit(run(options.out, size, options.parts, ends=time.monotonic() + 60 * options.minutes))


def run(out: Path, size: Size, parts: Sequence[str], *, ends: float) -> int:
    """Runs what is left of some parts until `ends` (of time.monotonic). Returns the exit code."""
    for folder in (out, size.work):
        folder.mkdir(parents=True, exist_ok=True)
    report: dict[str, Any] = {"tiny": size.tiny, "machine": machine(), "versions": versions(), "parts": {}}
    if (path := out / "report.json").is_file():
        before = read_json(path, what="report")
        if (before["tiny"], before["machine"]["gpu"]) != (size.tiny, report["machine"]["gpu"]):
            sys.exit(f"error: {out}: holds the report of another machine or size; give another --out")
        report["parts"] = before["parts"]
    for name in parts:
        part, left = PARTS[name], ends - time.monotonic()
        if report["parts"].get(name, {}).get("state") == "done":
            print(f"{name}: done before", flush=True)
            continue
        if left < ENOUGH:
            done = report["parts"].get(name, {"state": "not run", "reason": "the time of this run was over; run again"})
        else:
            print(f"{name}: {part.title} …", flush=True)
            limit = part.limit * (PATIENCE if size.tiny else 1)
            done = run_part(part, size, seconds=min(limit, left), log=out / "report.log")
        report["parts"][name] = done
        report["parts"] = {each: report["parts"][each] for each in PARTS if each in report["parts"]}
        write_report(out, report)
        took = f" in {done['seconds']:.0f} s" if "seconds" in done else ""
        print(f"{name}: {done['state']}{took}{done['reason'] and ': '}{done['reason']}", flush=True)
    print(f"report: {out / 'report.md'}")
    return int(any(each["state"] == "failed" for each in report["parts"].values()))


if __name__ == "__main__":
    main()
