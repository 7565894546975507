"""From photographs and their depth maps to records: right points, in the frame that training shows."""

import json

import numpy as np
import pytest
from command import llava_aurora
from PIL import Image

from llava_aurora.data.images.frame import FrameTransform
from llava_aurora.data.sources.depth.depth_records import DepthTasks, write_depth_records
from llava_aurora.data.validation.checks import CheckSettings, check_file
from llava_aurora.errors import AuroraError
from llava_aurora.tasks.annotated import Drawing
from llava_aurora.tasks.prompts import Prompts
from llava_aurora.tasks.records import RecordWriter
from llava_aurora.tokens.depth import DepthKind
from llava_aurora.tokens.vocabulary import pixel_family
from llava_aurora.vqvae.autoencoder import DepthVQVAEConfig, build_depth_vqvae
from llava_aurora.vqvae.checkpoint import save_depth_vqvae

FRAME = 112
KIND = DepthKind(vqvae=build_depth_vqvae(DepthVQVAEConfig(image_size=48, channels=(8, 8, 16, 16), codebook_size=16)))
WRITER = RecordWriter(prompts=Prompts(), families=(KIND.family, pixel_family(frame=FRAME)))


@pytest.fixture
def photographs(tmp_path):
    """Three pictures, two of them not square, each with a map that is closer from the upper left to the lower right."""
    folder, rng = tmp_path / "photos", np.random.default_rng(0)
    for name, (width, height) in {"a": (240, 120), "in/b": (120, 200), "c": (160, 160)}.items():
        for path in (folder / f"{name}.jpg", folder / "depth" / f"{name}.png"):
            path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 200, (9, 9), np.uint8)).resize((width, height)).convert("RGB").save(
            folder / f"{name}.jpg"
        )
        across, down = np.meshgrid(np.arange(width) / width, np.arange(height) / height)
        Image.fromarray((1 + 127 * (across + down)).astype(np.uint8)).save(folder / "depth" / f"{name}.png")
    return folder


def write(folder, **changes):
    tasks = {"drawing": Drawing(frame=FRAME), "aspect_ratio": changes.pop("aspect_ratio", "resize")}
    tasks |= {name: changes.pop(name) for name in ("validation_share", "seed", "shares") if name in changes}
    given = {"images": folder, "depth": folder / "depth", "kind": KIND, "writer": WRITER, **changes}
    return write_depth_records(folder.parent / "train.json", tasks=DepthTasks(**tasks), **given)


@pytest.mark.parametrize("aspect_ratio", ["resize", "pad", "square"])
def test_points_lie_in_the_frame_where_the_depth_map_has_their_depth(photographs, aspect_ratio):
    made = write(photographs, aspect_ratio=aspect_ratio)
    assert not made.failures
    assert {record["aurora"]["task"] for record in made.training} == set(DepthTasks().shares)
    for record in made.training:
        about = record["aurora"]
        if "points" not in about:
            continue
        with Image.open(photographs / about["depth"]) as picture:
            depth = np.asarray(picture)
        height, width = depth.shape
        into = FrameTransform.of(width=width, height=height, frame=FRAME, aspect_ratio=aspect_ratio)
        found = {}
        for letter, (x, y) in about["points"].items():
            column, row = (int(value) for value in into.original((x + 0.5, y + 0.5)))
            assert 0 <= column < width
            assert 0 <= row < height
            found[letter] = depth[row, column]
            assert abs(int(found[letter]) - about["depths"][letter]) <= 6
        assert max(found, key=found.get) == about["answer"]
    settings = CheckSettings(families=WRITER.families, frame=FRAME, image_folder=photographs, aspect_ratio=aspect_ratio)
    assert not check_file(photographs.parent / "train.json", settings).findings.numbers


def test_marks_are_drawn_where_the_points_are(photographs):
    made = write(photographs, aspect_ratio="pad")
    marked = [record for record in made.training if record["image"].startswith("aurora_marked/")]
    assert {record["image"] for record in marked} == {f"aurora_marked/{name}.png" for name in ("a", "in/b", "c")}
    for record in marked:
        with (
            Image.open(photographs / record["image"]) as picture,
            Image.open(photographs / record["aurora"]["unmarked"]) as plain,
        ):
            assert picture.size == plain.size
            into = FrameTransform.of(width=picture.width, height=picture.height, frame=FRAME, aspect_ratio="pad")
            red = np.asarray(picture).astype(int)
        for point in record["aurora"]["points"].values():
            x, y = into.place(point, picture.size)
            around = red[max(0, y - 5) : y + 6, max(0, x - 5) : x + 6]
            assert (around[..., 0] - around[..., 1]).max() > 150


def test_codes_are_those_of_the_map_as_the_frame_shows_it(photographs):
    made = write(photographs, aspect_ratio="pad", shares={"depth_generation": 1})
    record = next(record for record in made.training if record["image"] == "a.jpg")
    with Image.open(photographs / "depth" / "a.png") as picture:
        depth = np.asarray(picture)
    padded = np.zeros((240, 240), np.uint8)
    padded[60:180] = depth
    (span,) = KIND.family.parse(record["conversations"][1]["value"])
    assert list(span.codes) == KIND.encode(padded)


def test_what_cannot_be_used_is_named_and_what_is_left_out_counted(photographs):
    (photographs / "depth" / "c.png").unlink()
    Image.new("L", (240, 240), 9).save(photographs / "depth" / "a.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (120, 200)).save(photographs / "turned.jpg", exif=exif)
    Image.new("L", (120, 200), 9).save(photographs / "depth" / "turned.png")
    made = write(photographs)
    assert [failure.split(":")[0].rpartition("/")[2] for failure in made.failures] == ["a.png", "turned.jpg"]
    assert made.passed_over == {"images without a depth map": 1, "depth maps": 3}
    assert {record["id"].split("/depth")[0] for record in made.training} == {"in/b"}
    again = write(photographs)
    assert again.passed_over["marked copies"] == 1
    assert again.training == made.training


def test_images_are_kept_out_for_validation_and_what_does_not_go_together_is_refused(photographs, tmp_path):
    made = write(photographs, validation_share=0.5, seed=0, validation_out=tmp_path / "val.json")
    both = [{record["id"].split("/depth")[0] for record in each} for each in (made.training, made.validation)]
    assert both[0] | both[1] == {"a", "in/b", "c"}
    assert not both[0] & both[1]
    with pytest.raises(AuroraError, match="must be given together"):
        write(photographs, validation_share=0.5)
    with pytest.raises(AuroraError, match="need the aspect ratio resize"):
        write(photographs, aspect_ratio="pad", codes={})
    with pytest.raises(AuroraError, match=r"a\.png: has no codes"):
        write(photographs, codes={})
    with pytest.raises(AuroraError, match="unknown task 'counting_chain' about depth"):
        DepthTasks(shares={"counting_chain": 1})


def test_the_command_goes_from_maps_to_records_with_codes_made_here_or_before(photographs, tmp_path):
    save_depth_vqvae(KIND.vqvae, tmp_path / "vq")

    def run(*arguments):
        result = llava_aurora(*arguments, catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.output

    depth = ("--images", photographs, "--depth", photographs / "depth", "--vqvae", tmp_path / "vq", "--frame", FRAME)
    printed = run("data", "depth-records", *depth, "--out", tmp_path / "train.json")
    assert "depth_chain: 3 records" in printed
    assert "--image_aspect_ratio resize" in printed
    assert len(json.loads((tmp_path / "train.json").read_text())) == 15
    run("vqvae", "encode", photographs / "depth", "--vqvae", tmp_path / "vq", "--out", tmp_path / "codes.parquet")
    run("data", "depth-records", *depth, "--codes", tmp_path / "codes.parquet", "--out", tmp_path / "again.json")
    assert len(json.loads((tmp_path / "again.json").read_text())) == 15


def test_reversed_depth_is_refused_until_its_polarity_is_said(photographs, tmp_path):
    """The same maps with distances in the place of their values give the same records."""
    save_depth_vqvae(KIND.vqvae, tmp_path / "vqvae")
    upside = tmp_path / "upside"
    for path in (photographs / "depth").rglob("*.png"):
        target = upside / path.relative_to(photographs / "depth")
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(255 - np.asarray(Image.open(path))).save(target)
    out = tmp_path / "train.json"
    common = ["--image-folder", photographs, "--depth", upside, "--depth-vqvae", tmp_path / "vqvae", "--out", out]

    def run(*options):
        return llava_aurora("data", "depth-records", *common, "--frame", FRAME, *options)

    assert "closer may be lower. Say what the values are" in str(run().exception)
    assert not out.exists()
    result = run("--values", "relative", "--closer", "lower")
    assert result.exit_code == 0, result.output
    assert "needs --values, so --fresh_points cannot draw" in result.output
    right = [record["aurora"]["answer"] for record in write(photographs).training if "answer" in record["aurora"]]
    assert [r["aurora"]["answer"] for r in json.loads(out.read_text()) if "answer" in r["aurora"]] == right
