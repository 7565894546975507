"""How long it takes until something happens: importing llava_aurora, showing help, and what torch alone takes.

    python scripts/benchmark_startup.py --rounds 9

Each is a process of its own, in turns; what the bare interpreter takes is taken off. Goal: help in under 0.3 s, without
torch. The last line is JSON.
"""

import argparse
import statistics
import subprocess
import sys
from pathlib import Path

from side_by_side import interleaved, print_json

COMMAND = str(Path(sys.executable).with_name("llava-aurora"))
BARE = "the interpreter"
STARTS = {
    BARE: [sys.executable, "-c", "pass"],
    "import llava_aurora": [sys.executable, "-c", "import llava_aurora"],
    "llava-aurora --help": [COMMAND, "--help"],
    "llava-aurora ask --help": [COMMAND, "ask", "--help"],
    "import torch": [sys.executable, "-c", "import torch"],
    "import llava.train.train": [sys.executable, "-c", "import llava.train.train"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    if options.rounds < 1:
        parser.error("--rounds is at least 1")
    from rich.console import Console
    from rich.table import Table

    torch = {name: imports_torch(command) for name, command in STARTS.items()}  # also what warms the caches
    ways = {name: lambda command=command: _run(command) for name, command in STARTS.items()}
    timed = interleaved(ways, rounds=options.rounds, warm_up=0)
    seconds = {name: statistics.median(each) for name, each in timed.items()}
    grid = Table(title=f"seconds, medians of {options.rounds}, without the {seconds[BARE]:.2f} s of the interpreter")
    for heading in ("", "s", "imports torch"):
        grid.add_column(heading, justify="left" if not heading else "right")
    rows = {}
    for name in STARTS:
        if name != BARE:
            rows[name] = {"seconds": seconds[name] - seconds[BARE], "imports_torch": torch[name]}
            grid.add_row(name, f"{rows[name]['seconds']:.2f}", "yes" if rows[name]["imports_torch"] else "no")
    Console().print(grid)
    print_json("startup", starts=rows, interpreter=seconds[BARE])


def imports_torch(command: list[str]) -> bool:
    """Whether a Python command imports torch, by the interpreter's own log of imports."""
    timed = [sys.executable, "-X", "importtime", *(command[1:] if command[0] == sys.executable else command)]
    done = subprocess.run(timed, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=True)
    return any(line.rpartition("|")[2].strip() == "torch" for line in done.stderr.splitlines())


def _run(command: list[str]) -> None:
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)


if __name__ == "__main__":
    main()
