"""What --curriculum names: schedules by name, YAML files, and one line that says what is wrong with one."""

import re
from pathlib import Path

import pytest

from llava_aurora.data.curriculum.schedule import ConstantSchedule, LinearSchedule, MixtureSchedule, SoftmaxSchedule
from llava_aurora.data.curriculum.schedule_file import read_schedule
from llava_aurora.errors import AuroraError

GUIDE = Path(__file__).resolve().parents[3] / "docs" / "curriculum.md"


@pytest.fixture
def written(tmp_path):
    def write(text):
        path = tmp_path / "curriculum.yaml"
        path.write_text(text)
        return str(path)

    return write


@pytest.mark.parametrize(
    ("name", "kind"), [("linear", LinearSchedule), ("softmax", SoftmaxSchedule), ("constant", ConstantSchedule)]
)
def test_built_in_schedules_have_names(name, kind):
    assert read_schedule(name) == kind(source=f"--curriculum {name}")


def test_files_give_parameters_or_mixtures(written):
    path = written("schedule: linear\nstart: 0.8\nend: 0\nrecords_per_epoch: 90")
    assert read_schedule(path) == LinearSchedule(source=path, start=0.8, end=0.0, records_per_epoch=90)
    path = written("schedule: softmax\ntau0: 2\ndifficulty: {depth_direct: 3}")
    assert read_schedule(path) == SoftmaxSchedule(source=path, tau0=2.0, difficulty={"depth_direct": 3.0})
    path = written("schedule: constant\nweights: {depth_direct: 3}")
    assert read_schedule(path) == ConstantSchedule(source=path, weights={"depth_direct": 3.0})
    path = written("epochs:\n  - {depth_chain: 1}\n  - depth_chain: 2\n    depth_direct: 0.5\n")
    mixtures = [{"depth_chain": 1.0}, {"depth_chain": 2.0, "depth_direct": 0.5}]
    assert read_schedule(path) == MixtureSchedule(source=path, mixtures=mixtures)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- linear", "a YAML mapping"),
        ("", "a YAML mapping"),
        ("a: [", "not valid YAML: .* line 1"),
        ("!!python/object/apply:os.getcwd []", "not valid YAML: could not determine a constructor"),
        ("schedule: lineal", r"'schedule: NAME' with linear, softmax, constant"),
        ("schedule: [linear]", "'schedule: NAME'"),
        ("schedule: linear\nepochs: []", "linear has no 'epochs'"),
        ("schedule: linear\nstrat: 1", "linear has no 'strat'; it has records_per_epoch, start, end"),
        ("schedule: linear\nstart: 1.5", r"start is 1.5; it must be a number in \[0, 1\]"),
        ("schedule: linear\nstart: high", "start is 'high'"),
        ("schedule: linear\nstart: .nan", "start is nan"),
        ("schedule: softmax\ntau0: 0", "tau0 is 0; it must be a number at least 1e-06"),
        ("schedule: softmax\ncooling: .inf", "cooling is inf"),
        ("schedule: linear\nrecords_per_epoch: 0", "records_per_epoch is 0"),
        ("schedule: linear\nrecords_per_epoch: true", "records_per_epoch is True"),
        ("epochs: {}", "epochs must be a list"),
        ("epochs: []", "epochs must be a list"),
        ("epochs: [{depth_chain: 1}, [1]]", r"epochs\[1\]: a mapping"),
        ("epochs: [{depth_chian: 1}]", r"epochs\[0\]: unknown task 'depth_chian'; available: depth_generation,"),
        ("epochs: [{depth_chain: -1}]", r"epochs\[0\]: depth_chain is -1.* at least 0"),
        ("epochs: [{depth_chain: true}]", r"epochs\[0\]: depth_chain is True"),
        ("epochs: [{depth_chain: 0, depth_direct: 0.0}]", r"epochs\[0\]: all weights are 0"),
        ("epochs: [{other: 1}]", "'other' has no weight"),
        ("schedule: constant\nweights: {}", "weights: a mapping"),
    ],
)
def test_a_bad_file_is_named_with_what_is_wrong(written, text, message):
    with pytest.raises(AuroraError, match=message) as error:
        read_schedule(written(text))
    assert "curriculum.yaml" in str(error.value)
    assert "\n" not in str(error.value)


def test_what_is_neither_a_name_nor_a_file_says_what_there_is():
    with pytest.raises(
        AuroraError, match=r"--curriculum lineal: cannot read the curriculum: .*; it is linear, softmax, constant or"
    ):
        read_schedule("lineal")


def test_the_guides_examples_are_read(written):
    examples = re.findall(r"```yaml\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(examples) >= 2
    for example in examples:
        read_schedule(written(example))
