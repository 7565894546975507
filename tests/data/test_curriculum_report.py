"""The table and the picture of a curriculum show what the sampler will do."""

import io

from PIL import Image
from rich.console import Console

from llava_aurora.data.curriculum import Curriculum
from llava_aurora.data.curriculum_report import draw_schedule, print_schedule
from llava_aurora.data.schedule import LinearSchedule

COUNTS = {"depth_generation": 40, "depth_chain": 10, "depth_direct": 10, "counting_direct": 8, None: 2}


def test_the_table_has_counts_and_per_cent_of_each_epoch(make_store):
    text = io.StringIO()
    curriculum = Curriculum(make_store(COUNTS), LinearSchedule())
    print_schedule(curriculum, 10, console=Console(file=text, width=160))
    lines = text.getvalue().splitlines()
    assert "50 records an epoch" in lines[0]
    heads = [head.strip() for head in lines[2].strip("┃").split("┃")]
    assert heads == ["epoch", "depth_generation", "depth_chain", "depth_direct", "counting_direct", "other"]
    rows = [[cell.strip() for cell in line.strip("│").split("│")] for line in lines if line.startswith("│")]
    assert rows[0] == ["1", "40 (80%)", "0 (0%)", "0 (0%)", "8 (16%)", "2 (4%)"]
    assert rows[5] == ["6", "20 (40%)", "10 (20%)", "10 (20%)", "8 (16%)", "2 (4%)"]
    assert rows[-1] == ["in file", "40", "10", "10", "8", "2"]


def test_the_picture_is_written_whole(make_store, tmp_path):
    path = tmp_path / "pictures" / "linear.png"
    draw_schedule(Curriculum(make_store(COUNTS), LinearSchedule()), 10, path)
    with Image.open(path) as picture:
        assert picture.size[0] > picture.size[1] > 300
    assert [file.name for file in path.parent.iterdir()] == ["linear.png"]
