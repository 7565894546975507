"""Depth maps as codes of a VQ-VAE."""

import numpy as np
import pytest
import torch
from PIL import Image

from llava_aurora.errors import AuroraError
from llava_aurora.tokens.depth import DepthKind
from llava_aurora.vqvae.checkpoint import load_depth_vqvae


@pytest.fixture(scope="module")
def depth(workshop):
    return DepthKind(vqvae=load_depth_vqvae(workshop.vqvae))


def ramp(height: int, width: int) -> np.ndarray:
    return np.tile(np.linspace(1, 255, width).astype(np.uint8), (height, 1))


def test_a_map_becomes_one_code_per_cell_and_a_map_again(depth):
    codes = depth.encode(ramp(56, 56))
    assert len(codes) == 9
    assert depth.decode(codes).shape == (48, 48)
    (written,) = depth.read(depth.text(ramp(56, 56)))
    assert np.array_equal(written, depth.decode(codes))


def test_a_code_is_as_close_as_a_map_of_it_alone(depth):
    assert depth.code_depths.shape == (16,)
    for code in range(9):
        alone = depth.vqvae.decode(torch.full((1, 3, 3), code)).clamp(-1, 1).add(1).mul(127.5).mean()
        assert depth.code_depths[code] == pytest.approx(alone.item(), abs=1)


def test_between_cells_a_point_is_as_close_as_a_picture_of_their_values_that_is_resized_is_there(workshop):
    depth, codes = DepthKind(vqvae=load_depth_vqvae(workshop.vqvae)), [3, 1, 4, 1, 5, 9, 2, 6, 15]
    depth.code_depths = np.arange(0, 256, 16, dtype=np.uint8)  # the workshop's codes hardly differ
    values = Image.fromarray(depth.code_depths[codes].reshape(3, 3).astype(np.float32))
    expected = np.asarray(values.resize((90, 90), Image.Resampling.BILINEAR))
    found = [[depth.depth_between_cells(codes, (x, y), frame=90) for x in range(90)] for y in range(90)]
    assert np.abs(np.array(found) - expected).max() <= 0.51  # rounded
    assert len({round(value) for value in expected.flat}) > 20


def test_the_cells_around_a_point_are_those_whose_centres_it_lies_between(depth):
    assert depth.cells_around((0, 0), frame=99) == {0: 1.0}
    assert depth.cells_around((98, 98), frame=99) == {8: 1.0}
    assert depth.cells_around((49, 49), frame=99) == {4: 1.0}  # the centre of the middle one
    assert depth.cells_around((49, 98), frame=99) == {7: 1.0}
    around = depth.cells_around((33, 20), frame=99)
    assert set(around) == {0, 1, 3, 4}
    assert sum(around.values()) == pytest.approx(1)
    assert all(share > 0 for share in around.values())


@pytest.mark.parametrize("size", [(48, 48), (31, 90), (336, 336)])
def test_a_map_of_any_size_is_resized(depth, size):
    assert len(depth.encode(ramp(*size))) == 9


@pytest.mark.parametrize(
    ("annotation", "message"),
    [
        (np.zeros((48, 48), np.uint8), "all zero"),
        (np.full((48, 48), np.nan, np.float32), "NaN"),
        (np.ones((48, 48, 3), np.uint8), "height x width"),
        (np.full((48, 48), 3.5, np.float32), r"\[0, 1\]"),
    ],
)
def test_bad_maps_are_refused(depth, annotation, message):
    with pytest.raises(AuroraError, match=message):
        depth.encode(annotation)


def test_one_hot_probabilities_reconstruct_the_decoded_map(depth):
    codes = torch.arange(9)
    picture = depth.reconstruct(torch.nn.functional.one_hot(codes, 16).float()[None])
    assert torch.allclose(picture, depth.vqvae.decode(codes.view(1, 3, 3)), atol=1e-5)


def test_it_is_found_again_in_a_folder_and_another_vqvae_is_refused(depth, tmp_path):
    depth.save_files(tmp_path)
    again = DepthKind.from_settings(depth.settings(), tmp_path)
    assert again.settings() == depth.settings()
    with pytest.raises(AuroraError, match="another VQ-VAE"):
        DepthKind.from_settings({**depth.settings(), "fingerprint": "0" * 64}, tmp_path)
    with pytest.raises(AuroraError, match="is missing"):
        DepthKind.from_settings(depth.settings(), tmp_path / "elsewhere")
    with pytest.raises(AuroraError, match="--depth_vqvae"):
        DepthKind.from_settings({}, tmp_path)


def test_a_picture_has_the_size_of_the_image(depth):
    image = Image.new("RGB", (100, 60))
    assert depth.draw([ramp(48, 48)], image).size == (100, 60)
    assert not np.asarray(depth.draw([], image)).any()


@pytest.fixture(scope="module")
def raster(workshop):
    return DepthKind(vqvae=load_depth_vqvae(workshop.vqvae), raster_rows=True)


def test_raster_rows_begin_with_a_label_each_and_show_the_same_map(depth, raster):
    codes, plain = raster.encode(ramp(56, 56)), depth.encode(ramp(56, 56))
    assert codes == [16, *plain[:3], 17, *plain[3:6], 18, *plain[6:]]
    assert np.array_equal(raster.decode(codes), depth.decode(plain))
    assert raster.depth_between_cells(codes, (30, 40), frame=90) == depth.depth_between_cells(plain, (30, 40), frame=90)
    assert [codes[raster.place_of_cell(cell, length=len(codes))] for cell in range(9)] == plain
    assert raster.without_labels(plain) == plain, "a map without labels is read too"
    assert raster.family.parse(depth.text(ramp(56, 56)))[0].codes == tuple(plain)


def test_labels_alone_may_stand_where_a_row_begins_and_never_elsewhere(raster):
    codes = raster.encode(ramp(56, 56))
    for place in range(12):
        allowed = raster.allowed_codes(codes[:place])
        assert codes[place] in allowed
        assert list(allowed) == ([16 + place // 4] if place % 4 == 0 else list(range(16)))


def test_probabilities_of_labels_change_no_reconstruction(depth, raster):
    codes = raster.encode(ramp(56, 56))
    sure = torch.nn.functional.one_hot(torch.tensor([codes]), 19).float()
    unsure = 0.5 * sure
    unsure[..., 16:] += 0.5 / 3
    expected = depth.reconstruct(torch.nn.functional.one_hot(torch.tensor([raster.without_labels(codes)]), 16).float())
    assert torch.allclose(raster.reconstruct(sure), expected, atol=1e-6)
    assert torch.allclose(raster.reconstruct(unsure), expected, atol=1e-6)
