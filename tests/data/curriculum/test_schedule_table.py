"""The table and the picture of a curriculum show what the sampler will do."""

import io

import pytest
from PIL import Image
from rich.console import Console

from llava_aurora.data.curriculum.sampler import Curriculum
from llava_aurora.data.curriculum.schedule import LinearSchedule
from llava_aurora.data.curriculum.schedule_table import draw_schedule, print_schedule

COUNTS = {"depth_generation": 40, "depth_chain": 10, "depth_direct": 10, "counting_direct": 8, None: 2}


def test_the_table_has_counts_and_per_cent_of_each_epoch(make_store):
    text = io.StringIO()
    curriculum = Curriculum(make_store(COUNTS), LinearSchedule())
    print_schedule(curriculum, 10, console=Console(file=text, width=160))
    lines = text.getvalue().splitlines()
    assert "50 records an epoch" in lines[0]
    heads = [head.strip() for head in lines[2].strip("┃").split("┃")]
    assert heads == ["epoch", *map(str, range(1, 11)), "in file"]
    rows = [[cell.strip() for cell in line.strip("│").split("│")] for line in lines if line.startswith("│")]
    assert [row[0] for row in rows[::2]] == [
        "depth_generation",
        "depth_chain",
        "depth_direct",
        "counting_direct",
        "other",
    ]
    assert [row[1] for row in rows] == ["40", "80%", "0", "0%", "0", "0%", "8", "16%", "2", "4%"]
    assert [row[6] for row in rows] == ["20", "40%", "10", "20%", "10", "20%", "8", "16%", "2", "4%"]
    assert [row[-1] for row in rows[::2]] == ["40", "10", "10", "8", "2"]


@pytest.mark.parametrize(
    ("width", "epochs"),
    [(160, ["1", "12", "23", "34", "45", "56", "67", "78", "89", "100"]), (80, ["1", "34", "67", "100"])],
)
def test_a_long_run_is_shown_in_as_many_epochs_as_there_is_room_for(make_store, width, epochs):
    text = io.StringIO()
    print_schedule(Curriculum(make_store(COUNTS), LinearSchedule()), 100, console=Console(file=text, width=width))
    heads = [head.strip() for head in text.getvalue().splitlines()[2].strip("┃").split("┃")]
    assert heads == ["epoch", *epochs, "in file"]


def test_the_picture_is_written_whole(make_store, tmp_path):
    path = tmp_path / "pictures" / "linear.png"
    draw_schedule(Curriculum(make_store(COUNTS), LinearSchedule()), 10, path)
    with Image.open(path) as picture:
        assert picture.size[0] > picture.size[1] > 300
    assert [file.name for file in path.parent.iterdir()] == ["linear.png"]
