"""A small data set in the layout of LVIS 1: ray-cast scenes and photographs under train2017 and val2017."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from llava_aurora.data.sources.scenes.scene import SceneConfig
from llava_aurora.data.sources.scenes.scene_folder import write_scenes

SCENES, FRAME = 24, 64


def write_lvis(folder: Path) -> Path:
    """Writes folder/lvis.json, folder/train2017 and folder/val2017; returns the annotation file."""
    data = pytest.importorskip("skimage.data")
    scenes = write_scenes(out=folder / "scenes", count=SCENES, seed=3, config=SceneConfig(frame=FRAME, shadows=False))
    kinds = sorted({(item.color, item.shape) for scene in scenes for item in scene.objects})
    ids = {kind: number for number, kind in enumerate(kinds, start=1)}
    cup, spoon, bow = (len(kinds) + extra for extra in (1, 2, 3))
    names = [f"{color}_{shape}" for color, shape in kinds] + ["cup", "spoon", "bow_(weapon)"]
    images, annotations = [], []

    def add(id, split, picture, boxes, absent, not_exhaustive=()):
        (folder / split).mkdir(exist_ok=True)
        picture.save(folder / split / f"{id:012d}.jpg", quality=95)
        images.append(
            {
                "id": id,
                "width": picture.width,
                "height": picture.height,
                "coco_url": f"http://images.cocodataset.org/{split}/{id:012d}.jpg",
                "neg_category_ids": list(absent),
                "not_exhaustive_category_ids": list(not_exhaustive),
            }
        )
        for category, (x1, y1, x2, y2) in boxes:
            box = [x1, y1, x2 - x1, y2 - y1]
            outline = [[x1, y1, x2, y1, x2, y2]]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": id,
                    "category_id": category,
                    "bbox": box,
                    "area": box[2] * box[3],
                    "segmentation": outline,
                }
            )

    for scene in scenes:
        boxes = [(ids[item.color, item.shape], item.box) for item in scene.objects]
        absent = [number for number in ids.values() if number not in {category for category, _ in boxes}][:4]
        with Image.open(folder / "scenes" / scene.image) as picture:
            add(100 + int(scene.id), "train2017", picture.convert("RGB"), boxes, absent)
    coffee = Image.fromarray(data.coffee())
    add(9, "val2017", coffee, [(cup, (165, 15, 410, 322)), (spoon, (321, 68, 425, 326))], [bow])
    add(12, "val2017", Image.fromarray(np.ascontiguousarray(data.chelsea())), [(cup, (3, 3, 20, 20))], [bow], [cup])
    categories = [{"id": id, "name": name, "frequency": "f"} for id, name in enumerate(names, start=1)]
    path = folder / "lvis.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return path
