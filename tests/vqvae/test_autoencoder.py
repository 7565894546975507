"""The autoencoder: shapes, ranges and refusals; the published size; 8-bit maps in and out."""

import copy

import numpy as np
import pytest
import torch

from llava_aurora.vqvae import DepthVQVAE, DepthVQVAEConfig, build_depth_vqvae
from llava_aurora.vqvae.maps import from_model_range, resize_nearest, to_model_range

TINY = DepthVQVAEConfig(image_size=48, channels=(4, 6, 8), code_dim=5, codebook_size=16)


@pytest.fixture
def tiny() -> DepthVQVAE:
    return build_depth_vqvae(TINY, seed=1).eval()


def ramp(height: int, width: int) -> np.ndarray:
    return np.linspace(1, 255, height * width).reshape(height, width).astype(np.uint8)


def test_the_default_has_the_published_number_of_parameters_and_grid():
    model = build_depth_vqvae(DepthVQVAEConfig())
    assert sum(parameter.numel() for parameter in model.parameters()) == 7_689_201  # 7.69 M
    assert tuple(model.quantizer.codebook.shape) == (128, 512)
    assert (model.grid, model.codes_per_map) == (10, 100)


@pytest.mark.parametrize(
    ("image_size", "channels", "grid"), [(96, (4, 4, 4, 4), 6), (64, (4, 4), 16), (8, (4, 4, 4), 1)]
)
def test_every_depth_of_the_recipe_fits_together(image_size: int, channels: tuple[int, ...], grid: int):
    config = DepthVQVAEConfig(image_size=image_size, channels=channels, code_dim=3, codebook_size=4)
    model = build_depth_vqvae(config).eval()
    depth = torch.rand(2, 1, image_size, image_size) * 2 - 1
    indices = model.encode(depth)
    assert indices.shape == (2, grid, grid)
    assert indices.dtype == torch.int64
    assert 0 <= indices.min() <= indices.max() < 4
    assert model.decode(indices).shape == depth.shape


def test_forward_gives_the_parts_of_the_loss(tiny: DepthVQVAE):
    depth = torch.rand(2, 1, 48, 48) * 2 - 1
    output = tiny(depth)
    torch.testing.assert_close(output.reconstruction_mse, (output.reconstruction - depth).square().mean())
    assert torch.equal(output.indices, tiny.encode(depth))
    torch.testing.assert_close(output.reconstruction, tiny.decode(output.indices))
    output.reconstruction_mse.backward()
    assert tiny.encoder[0].weight.grad.abs().sum() > 0  # through the quantizer


def test_the_same_seed_builds_the_same_model_and_leaves_the_generator_alone():
    state = torch.random.get_rng_state()
    first, second, other = (build_depth_vqvae(TINY, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(first.encoder[0].weight, second.encoder[0].weight)
    assert torch.equal(first.quantizer.codebook, second.quantizer.codebook)
    assert not torch.equal(first.encoder[0].weight, other.encoder[0].weight)


def test_layout_and_work_in_place_change_no_number():
    built = build_depth_vqvae(TINY, seed=1).eval()
    plain = copy.deepcopy(built).to(memory_format=torch.contiguous_format)
    for layer in plain.modules():
        if isinstance(layer, torch.nn.ReLU):
            layer.inplace = False
    assert built.encoder[0].weight.is_contiguous(memory_format=torch.channels_last)
    depth = torch.rand(3, 1, 48, 48) * 2 - 1
    assert torch.equal(built.encode(depth), plain.encode(depth))
    outputs = [model(depth) for model in (built, plain)]
    torch.testing.assert_close(outputs[0].reconstruction, outputs[1].reconstruction)
    for output in outputs:
        (output.reconstruction_mse + output.commitment_loss).backward()
    for ours, theirs in zip(built.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)


def test_certain_probabilities_decode_like_their_codes(tiny: DepthVQVAE):
    indices = torch.randint(0, 16, (2, 6, 6), generator=torch.Generator().manual_seed(0))
    one_hot = torch.nn.functional.one_hot(indices.flatten(1), 16).float()
    torch.testing.assert_close(tiny.decode_soft(one_hot), tiny.decode(indices))


def test_soft_decoding_is_differentiable_in_the_probabilities(tiny: DepthVQVAE):
    logits = torch.randn(1, 36, 16, requires_grad=True)
    tiny.decode_soft(logits.softmax(-1)).square().mean().backward()
    assert torch.isfinite(logits.grad).all()
    assert logits.grad.abs().sum() > 0


@pytest.mark.parametrize("shape", [(48, 48), (100, 31), (7, 7)])
def test_maps_of_any_size_become_codes_and_maps_again(tiny: DepthVQVAE, shape: tuple[int, int]):
    depth = ramp(*shape)
    codes = tiny.encode_array(depth)
    assert len(codes) == 36
    assert all(isinstance(code, int) and 0 <= code < 16 for code in codes)
    assert codes == tiny.encode_array(depth)
    frame, back = tiny.decode_codes(codes), tiny.decode_codes(codes, size=shape)
    assert frame.dtype == np.uint8
    assert frame.shape == (48, 48)
    assert back.shape == shape
    assert np.array_equal(back, resize_nearest(frame, shape))


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        ([0] * 35, r"expected 36 codes \(6x6\), found 35"),
        ([0] * 37, "found 37"),
        ([0] * 35 + [16], r"code 16 at position 35 is not in \[0, 16\)"),
        ([-1] + [0] * 35, "code -1 at position 0"),
        ([0.5] + [0] * 35, "code 0.5 at position 0 is not an integer"),
    ],
)
def test_malformed_codes_are_refused(tiny: DepthVQVAE, codes: list, message: str):
    with pytest.raises(ValueError, match=message):
        tiny.decode_codes(codes)


def test_wrong_tensors_are_refused(tiny: DepthVQVAE):
    with pytest.raises(ValueError, match=r"expected depth \(B, 1, 48, 48\), found \(1, 1, 47, 48\)"):
        tiny.encode(torch.zeros(1, 1, 47, 48))
    with pytest.raises(ValueError, match=r"expected depth"):
        tiny(torch.zeros(1, 3, 48, 48))
    with pytest.raises(ValueError, match=r"expected code indices \(B, 6, 6\)"):
        tiny.decode(torch.zeros(1, 36, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"in \[0, 16\), found 0 to 16"):
        tiny.decode(torch.tensor([16] + [0] * 35).view(1, 6, 6))
    with pytest.raises(ValueError, match=r"expected probabilities \(B, 36, 16\)"):
        tiny.decode_soft(torch.zeros(1, 35, 16))
    with pytest.raises(ValueError, match="uint8"):
        tiny.encode_array(np.zeros((48, 48), np.float32))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"image_size": 100}, "image_size 100 is not a multiple of 32"),
        ({"channels": ()}, "channels"),
        ({"codebook_size": 0}, "codebook_size"),
        ({"codebook_size": True}, "codebook_size"),
        ({"code_dim": 16.5}, "code_dim"),
        ({"channels": ("8",)}, "channels"),
        ({"channels": (10**8,)}, "channels"),
        ({"decay": 1.0}, "decay"),
        ({"residual_blocks": -1}, "residual_blocks"),
    ],
)
def test_impossible_configurations_are_refused(settings: dict, message: str):
    with pytest.raises(ValueError, match=message):
        DepthVQVAEConfig(**settings)


def test_the_range_of_the_model_and_back_is_exact():
    values = np.arange(256, dtype=np.uint8).reshape(16, 16)
    scaled = to_model_range(values)
    assert (scaled.min(), scaled.max()) == (-1, 1)
    assert np.array_equal(from_model_range(scaled), values)
    assert from_model_range(torch.tensor([-3.0, 3.0])).tolist() == [0, 255]


def test_nearest_resize_takes_the_pixel_under_each_centre():
    row = np.array([[10, 20, 30, 40]], np.uint8)
    assert resize_nearest(row, (1, 2)).tolist() == [[20, 40]]
    assert resize_nearest(row, (2, 8)).tolist() == [[10, 10, 20, 20, 30, 30, 40, 40]] * 2
    assert np.array_equal(resize_nearest(row, (1, 4)), row)
