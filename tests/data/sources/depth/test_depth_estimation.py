"""Photographs to relative depth by a depth estimator of random weights: what runs is right, what it says is not."""

import numpy as np
import pytest
import torch
from command import llava_aurora
from PIL import Image
from skimage import data as photographs
from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation, Dinov2Config, DPTImageProcessor

from llava_aurora.data.sources.depth.depth_estimation import DepthEstimator, default_device, estimate_maps, read_image
from llava_aurora.errors import AuroraError
from llava_aurora.vqvae.depth_scale import DepthScale

SIDE = 56


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def build(folder, kind="relative"):
    backbone = Dinov2Config(
        image_size=SIDE,
        patch_size=14,
        hidden_size=32,
        num_hidden_layers=4,
        num_attention_heads=2,
        out_features=["stage1", "stage2", "stage3", "stage4"],
        reshape_hidden_states=False,
    )
    config = DepthAnythingConfig(
        backbone_config=backbone,
        reassemble_hidden_size=32,
        neck_hidden_sizes=[8, 16, 32, 32],
        fusion_hidden_size=16,
        head_hidden_size=8,
        patch_size=14,
        depth_estimation_type=kind,
        max_depth=20 if kind == "metric" else 1,
    )
    torch.manual_seed(0)
    DepthAnythingForDepthEstimation(config).save_pretrained(folder)
    size = {"height": SIDE, "width": SIDE}
    DPTImageProcessor(size=size, keep_aspect_ratio=True, ensure_multiple_of=14).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(build(tmp_path_factory.mktemp("estimator")))


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Seven photographs of four sizes, one that is stored turned, and a file that is no image."""
    folder = tmp_path_factory.mktemp("images")
    (folder / "sub").mkdir()
    for name in ("astronaut", "chelsea", "coffee", "rocket"):
        picture = Image.fromarray(getattr(photographs, name)())
        picture.thumbnail((120, 120))
        picture.save(folder / f"{name}.jpg")
        if name != "chelsea":
            picture.convert("L").save(folder / "sub" / f"{name}.png")
            continue
        exif = Image.Exif()
        exif[0x0112] = 6  # to be turned by 90° when shown
        picture.save(folder / "sub" / "turned.jpg", exif=exif)
    (folder / "sub" / "broken.jpg").write_bytes(b"no picture")
    return folder


def maps_of(folder):
    return {path.relative_to(folder).as_posix(): np.asarray(Image.open(path)) for path in folder.rglob("*.png")}


@pytest.fixture(scope="module")
def estimated(model, images, tmp_path_factory):
    out = tmp_path_factory.mktemp("estimated")
    estimator = DepthEstimator(model=model, batch_size=3)
    return out, estimate_maps(images=images, out=out, estimator=estimator, workers=2)


def test_each_image_has_a_map_of_its_size(estimated, images):
    out, report = estimated
    assert report.written == 7
    assert sorted(report.failures) == [str(images / "sub" / "broken.jpg"), str(images / "sub" / "turned.jpg")]
    assert "EXIF orientation 6" in report.failures[str(images / "sub" / "turned.jpg")]
    found = maps_of(out)
    assert len(found) == 7
    for path in images.rglob("*.*"):
        if path.stem not in ("broken", "turned"):
            relative = found[path.relative_to(images).with_suffix(".png").as_posix()]
            with Image.open(path) as picture:
                assert relative.shape == (picture.height, picture.width)
            assert (relative.min(), relative.max(), relative.dtype) == (1, 255, np.uint8)


def test_maps_are_the_estimators_own_whatever_the_batch(estimated, images, model):
    """One image at a time through the model itself, without the pipeline."""
    processor = DPTImageProcessor.from_pretrained(model)
    network = DepthAnythingForDepthEstimation.from_pretrained(model).eval()
    scale = DepthScale(values="relative", closer="higher")
    for name in ("astronaut", "rocket"):
        picture = Image.open(images / f"{name}.jpg").convert("RGB")
        with torch.no_grad():
            outputs = network(**processor(picture, return_tensors="pt"))
        (found,) = processor.post_process_depth_estimation(outputs, [picture.size[::-1]])
        expected = scale.relative(found["predicted_depth"].numpy())
        assert np.abs(maps_of(estimated[0])[f"{name}.png"].astype(int) - expected).max() <= 1


def test_metric_estimators_write_distances(tmp_path, images, estimated):
    metric = DepthEstimator(model=str(build(tmp_path / "model", kind="metric")))
    assert metric.values == "metric"
    assert estimate_maps(images=images, out=tmp_path / "out", estimator=metric).written == 7
    depth = metric.estimate([read_image(images / "rocket.jpg")])[0]
    relative = maps_of(tmp_path / "out")["rocket.png"]
    assert relative.ravel()[depth.argmin()] == 255
    assert relative.ravel()[depth.argmax()] == 1


def test_an_image_that_the_estimator_fails_on_does_not_take_others_along(tmp_path, images, model, monkeypatch):
    estimator = DepthEstimator(model=model, batch_size=4)
    real = estimator.estimate
    too_much, unlucky = (np.asarray(read_image(images / name)) for name in ("rocket.jpg", "coffee.jpg"))

    def fails(batch):
        if any(np.array_equal(image, too_much) for image in batch):
            raise RuntimeError("out of memory\nand more")
        none = [np.array_equal(image, unlucky) for image in batch]
        return [depth * np.nan if nothing else depth for depth, nothing in zip(real(batch), none, strict=True)]

    monkeypatch.setattr(estimator, "estimate", fails)
    report = estimate_maps(images=images, out=tmp_path / "out", estimator=estimator, bits=16)
    reasons = {path.removeprefix(f"{images}/"): reason for path, reason in report.failures.items()}
    assert reasons.pop("sub/broken.jpg")
    assert reasons.pop("sub/turned.jpg")
    assert reasons == {
        "rocket.jpg": "the depth estimator failed: out of memory",
        "coffee.jpg": "the depth estimator's output is unusable: it has no known depth",
    }
    assert report.written == 5
    assert all(relative.dtype == np.uint16 for relative in maps_of(tmp_path / "out").values())


def test_an_estimator_that_does_not_say_what_it_writes_is_asked_for(model, monkeypatch):
    monkeypatch.setattr(DepthAnythingConfig, "model_type", "new_estimator")
    estimator = DepthEstimator(model=model)
    estimator.pipeline.model.config.depth_estimation_type = ""
    with pytest.raises(AuroraError, match="give --values"):
        estimator._values()
    assert DepthEstimator(model=model, values="metric").values == "metric"


def test_what_is_no_estimator_is_named(tmp_path):
    with pytest.raises(AuroraError, match="cannot be loaded as a depth estimator"):
        DepthEstimator(model=str(tmp_path))
    for name in (str(tmp_path / "nowhere"), "./nowhere", "a/b/c"):
        with pytest.raises(AuroraError, match="neither a folder nor a valid name on the Hugging Face hub"):
            DepthEstimator(model=name)


def test_pickled_weights_are_refused(tmp_path, model):
    network = DepthAnythingForDepthEstimation.from_pretrained(model)
    network.config.save_pretrained(tmp_path)
    DPTImageProcessor.from_pretrained(model).save_pretrained(tmp_path)
    torch.save(network.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(AuroraError, match="cannot be loaded as a depth estimator"):
        DepthEstimator(model=str(tmp_path))


def test_each_process_has_a_gpu_of_its_own(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert default_device() == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert default_device() == "cuda:3"


@pytest.mark.slow
def test_two_processes_share_the_images(tmp_path, images, model, estimated, start):
    """With --multi_gpu, as --cpu starts one process whatever --num_processes says; it works without GPUs too."""
    flags = ("--num_machines", 1, "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", 0)
    command = ("data", "depth", "--images", images, "--out", tmp_path, "--model", model, "--device", "cpu")
    launch = ("accelerate", "launch", "--multi_gpu", "--num_processes", 2, *flags, "-m", "llava_aurora.cli", *command)
    run = start(*launch, code=1)
    assert run.output.count("7 maps written") == 1, run.output
    assert run.output.count("broken.jpg: cannot read the image") == 1
    assert "depth maps of process 1 of 2" in run.output
    assert len((tmp_path / "failures.jsonl").read_text().splitlines()) == 2
    ours, alone = maps_of(tmp_path), maps_of(estimated[0])
    assert ours.keys() == alone.keys()
    assert all(np.abs(ours[name].astype(int) - alone[name]).max() <= 1 for name in alone)


def test_the_command_takes_an_estimator(tmp_path, images, model):
    arguments = ("data", "depth", "--images", images, "--out", tmp_path, "--model", model, "--device", "cpu")
    result = llava_aurora(*arguments)
    assert result.exit_code == 1
    assert "7 maps written" in result.stdout
    assert "broken.jpg: cannot read the image" in result.stderr
