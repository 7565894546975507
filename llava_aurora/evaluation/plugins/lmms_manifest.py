"""What lmms-eval finds through the entry-point group `lmms_eval.models`: the model `llava_aurora`."""

from typing import Any

MODEL_ID = "llava_aurora"


def manifests() -> Any:
    """The manifest of the model; called by lmms-eval, which is imported only here."""
    from lmms_eval.models.registry_v2 import ModelManifest

    return ModelManifest(
        model_id=MODEL_ID, simple_class_path="llava_aurora.evaluation.plugins.lmms_eval.LlavaAuroraModel"
    )
