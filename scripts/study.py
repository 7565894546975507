"""The study: what perception tokens are worth, by training the same small LLaVA in many ways. See docs/study.md.

python scripts/study.py --size cpu --out study_output --plan      # what would be run, and about how long it takes
python scripts/study.py --size cpu --out study_output             # goes on where it was; report/report.md
python scripts/study.py --size gpu --out study_output --only direct full --seeds 0
python scripts/study.py --size cpu --out study_output --results docs/study/report.json --only chain   # adds to a report
"""

import argparse
import sys
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", required=True, help="cpu, gpu or smoke")
    parser.add_argument("--out", type=Path, required=True, help="folder of the study; one that was stopped goes on")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="these contestants alone")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1], help="default: 0 1")
    parser.add_argument(
        "--results", nargs="+", type=Path, default=[], metavar="JSON", help="reports whose runs count as done"
    )
    parser.add_argument("--plan", action="store_true", help="only show the runs, their state and their time")
    parser.add_argument("--measure", action="store_true", help="with --plan: train for a few steps to know the time")
    options = parser.parse_args()

    from rich.console import Console

    from llava_aurora.errors import AuroraError
    from llava_aurora.study.pipeline import Study

    try:
        study = Study(size=options.size, out=options.out, only=options.only, seeds=options.seeds)
        for report in options.results:
            print(f"{report}: {len(study.take_over(report))} runs taken over")
        if options.plan or options.measure:
            Console(width=140).print(study.plan(measure=options.measure))
        else:
            study.run()
    except AuroraError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
