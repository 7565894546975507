"""Asks the demo's model about held-out scenes, with and without a chain, and replaces the maps of its chains."""

from pathlib import Path

from llava_aurora.demo.demo_folder import DemoFolder
from llava_aurora.evaluation.answers import AnswerSettings
from llava_aurora.evaluation.replacement import replacement_test
from llava_aurora.evaluation.run import Plan, evaluate
from llava_aurora.generation.predictor import Predictor

COORDINATES, MARKED, COUNTING = "scenes_coordinates", "scenes_depth", "scenes_counting"
REPLACED = "replaced"  # a folder beside, as fewer questions are asked


def ask_scenes(demo: DemoFolder, folder: Path) -> None:
    """Evaluations in the folder, as `llava-aurora eval` and `replace-test` write them; the latter if there are maps."""
    predictor = Predictor.from_pretrained(demo.work / "model")
    settings = AnswerSettings(max_new_tokens=256, decoding="verified")
    plan = Plan(
        tasks=(COORDINATES, MARKED, COUNTING),
        data=demo.images,
        settings=settings,
        batch_size=64,
        limit=demo.preset.questions,
        pictures=2,
    )
    asked = evaluate(predictor, plan, out=folder)
    perception = predictor.perception
    assert perception is not None, "the demo trains a model with perception tokens"
    chains = asked[0].answers["chain"]
    if not any(perception.kinds["depth"].family.end in chain.text for chain in chains):
        return  # no map to be replaced
    replaced = Plan(
        tasks=(COORDINATES,), data=demo.images, settings=settings, batch_size=64, limit=demo.preset.replaced, pictures=0
    )
    replacement_test(predictor, replaced, out=folder if replaced.limit == plan.limit else folder / REPLACED)
