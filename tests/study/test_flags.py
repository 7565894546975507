"""Every contestant's flags are ones that training takes."""

import json

import pytest

from llava_aurora.demo.stages import as_arguments
from llava_aurora.study.contestants import CONTESTANTS, Run
from llava_aurora.study.materials import Materials
from llava_aurora.study.running import Runner
from llava_aurora.study.sizes import SIZES


@pytest.fixture(scope="module")
def parser():
    from llava_aurora import integration
    from llava_aurora.training.command_line import flag_parser
    from llava_aurora.training.recipes import find_recipe

    integration.register()
    yield flag_parser(find_recipe(None), {})
    integration.unregister()


@pytest.mark.parametrize("name", CONTESTANTS)
def test_training_takes_its_flags(name, parser, tmp_path):
    runner = Runner(SIZES["cpu"], Materials(SIZES["cpu"], tmp_path))
    run = Run(CONTESTANTS[name], 1)
    flags = parser.parse_args(as_arguments(runner.flags(run, tmp_path)))
    for flag, value in run.contestant.flags.items():
        assert getattr(flags, flag) == value
    assert flags.model_name_or_path == str(tmp_path / "base-1")
    assert flags.num_train_epochs * SIZES["cpu"].records_per_epoch == SIZES["cpu"].samples
    steps = SIZES["cpu"].samples // (flags.per_device_train_batch_size * flags.gradient_accumulation_steps)
    assert json.loads(flags.lr_scheduler_kwargs)["num_decay_steps"] == steps // 5


@pytest.mark.parametrize("size", SIZES.values(), ids=lambda size: size.name)
def test_sizes_keep_the_papers_proportions(size):
    assert size.scene.frame == size.model.frame
    assert size.questions * 40 == size.maps or size.name == "smoke"
