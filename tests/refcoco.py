"""Two images and what is in them, in the layouts that RefCOCO is published in."""

import io
import json
import pickle

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

SIZE = (40, 30)
CUP = [4.0, 5.0, 14.0, 5.0, 14.0, 15.0, 4.0, 15.0]
DISH = [20.0, 10.0, 36.0, 10.0, 36.0, 25.0, 20.0, 25.0]


def write_rows(folder, **columns):
    """Rows as lmms-lab's RefCOCO has them; arguments replace columns of the second."""
    content = io.BytesIO()
    Image.new("RGB", SIZE, (90, 120, 60)).save(content, format="JPEG")
    image = {"bytes": content.getvalue(), "path": None}
    about = {"question": "Please carefully observe the area circled in the image.", "iscrowd": 0, "image": image}
    table = [
        {"question_id": "1", "file_name": "COCO_train2014_000000000009_3.jpg", "answer": ["left cup", "white cup"]},
        {"question_id": "2", "file_name": "COCO_train2014_000000000009_4.jpg", "answer": ["dish"]},
    ]
    for row, segment in zip(table, (CUP, DISH), strict=True):
        row.update(about, segmentation=segment, bbox=[segment[0], segment[1], 10.0, 10.0])
    table[1].update(columns)
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(table), folder / "val-00000-of-00001.parquet")
    return folder


def write_refs(folder, name="refs(unc).p", *, segment=CUP, protocol=0, **parts):
    """`refs` and instances.json beside an image; arguments replace parts of the first reference."""
    folder.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", SIZE, (90, 120, 60)).save(folder / "COCO_train2014_000000000009.jpg")
    found = [
        {"ref_id": 7, "ann_id": 1, "image_id": 9, "category_id": 47, "split": "testA", "sent_ids": [3, 4]},
        {"ref_id": 8, "ann_id": [1, 2], "image_id": 9, "split": "train", "sentences": [{"sent": "all of it"}]},
        {"ref_id": 9, "ann_id": [-1], "image_id": 9, "split": "train", "sentences": [{"sent": "a dog"}]},
    ]
    found[0]["sentences"] = [{"sent_id": 3, "sent": "the left  cup", "tokens": ["left", "cup"], "raw": "Left cup!"}]
    found[0].update(parts)
    content = pickle.dumps(found, protocol) if name.endswith(".p") else json.dumps(found).encode()
    (folder / name).write_bytes(content)
    annotations = [
        {"id": 1, "image_id": 9, "category_id": 47, "segmentation": [segment], "bbox": [4, 5, 10, 10]},
        {"id": 2, "image_id": 9, "category_id": 48, "segmentation": [DISH], "bbox": [20, 10, 16, 15]},
    ]
    picture = {"id": 9, "file_name": "COCO_train2014_000000000009.jpg", "width": SIZE[0], "height": SIZE[1]}
    (folder / "instances.json").write_text(json.dumps({"images": [picture], "annotations": annotations}))
    return folder


def filled(outline):
    """The mask of an outline that is a box."""
    mask = np.zeros(SIZE[::-1], bool)
    mask[int(outline[1]) : int(outline[5]), int(outline[0]) : int(outline[2])] = True
    return mask
