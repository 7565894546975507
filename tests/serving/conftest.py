"""A page in this process, behind it a model that writes what it is told to, at once or when it is let."""

import threading
from contextlib import ExitStack
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from llava_aurora.data.images.frame import FrameTransform
from llava_aurora.errors import AuroraError
from llava_aurora.tokens.box import BoxKind
from llava_aurora.tokens.depth import DepthKind
from llava_aurora.tokens.vocabulary import pixel_family
from llava_aurora.vqvae.autoencoder import DepthVQVAEConfig, build_depth_vqvae

gradio = pytest.importorskip("gradio", reason="pip install 'llava-aurora[serve]'")

FRAME, CODES = 56, tuple(range(9))
PIXELS = pixel_family(frame=FRAME)


class ScriptedAurora:
    """Writes one chain, token by token, as `Aurora.stream` does.

    Attributes:
        asked: (size of the image, question, reasoning, decoding) of every stream that was begun.
        ended: set when a stream was closed or came to its end.
        let: before each piece after the first ten it is waited for.
        wide: a box around the middle of the image, at the end of the chain.
    """

    def __init__(self, vqvae):
        self.depth = DepthKind(vqvae=vqvae)
        perception = SimpleNamespace(kinds={"depth": self.depth, "box": BoxKind(frame=FRAME)})
        self.family = self.depth.family
        self.model = SimpleNamespace(
            perception=perception, config=SimpleNamespace(image_aspect_ratio="pad", max_position_embeddings=512)
        )
        self.image_processor = SimpleNamespace(do_center_crop=True, size={"shortest_edge": FRAME})
        self.clear()

    def clear(self):
        self.asked, self.ended, self.let = [], threading.Event(), threading.Event()
        self.let.set()
        self.error, self.answer = None, "(B)"

    @property
    def pieces(self):
        family = self.family
        spans = [family.start, *map(family.token, CODES), family.end]
        box = PIXELS.text((14, 14, 28, 28))
        return ["Look", " at ", box, ". The ", "depth map is ", *spans, ". The answer is ", self.answer, "."]

    def stream(self, image, question, *, reasoning, decoding="greedy"):
        from llava_aurora.generation.result import Result, Timings

        self.asked.append((image.size, question, reasoning, decoding))
        if self.error is not None:
            raise self.error
        if len(question) > 2000:
            raise AuroraError(f"the question takes {len(question)} tokens, and the model's context is 512")
        try:
            for number, piece in enumerate(self.pieces):
                if number >= 10:
                    assert self.let.wait(timeout=30)
                yield piece
            yield Result(
                text="".join(self.pieces),
                ids=(),
                finished=True,
                question=question,
                reasoning=reasoning,
                image=image,
                timings=Timings(preparing=0.1, generating=0.4, tokens=len(self.pieces), forward_passes=7),
                token_log_probabilities=None,
                perception=self.model.perception,
                transform=lambda frame: FrameTransform.of(
                    width=image.width, height=image.height, frame=frame, aspect_ratio="resize"
                ),
            )
        finally:
            self.ended.set()


@pytest.fixture(scope="session")
def scripted_model():
    torch.manual_seed(0)
    config = DepthVQVAEConfig(image_size=48, channels=(8, 8, 16, 16), code_dim=16, codebook_size=16)
    return ScriptedAurora(build_depth_vqvae(config))


@pytest.fixture
def aurora(scripted_model):
    scripted_model.clear()
    yield scripted_model
    scripted_model.let.set()


@pytest.fixture(scope="session")
def site(scripted_model, tmp_path_factory):
    """The page, served: its address. Images of up to 1 MiB, four questions wait."""
    from llava_aurora.serving.server import ServerSettings, running

    examples = tmp_path_factory.mktemp("examples")
    Image.new("RGB", (300, 200), (200, 80, 60)).save(examples / "one.png")
    Image.new("RGB", (100, 150), (60, 80, 200)).save(examples / "two.png")
    settings = ServerSettings(port=0, max_upload_mb=1, queue=4, decoding="verified", examples=examples, interval=0)
    with ExitStack() as stack:
        yield stack.enter_context(running(scripted_model, settings, name="scripted"))


@pytest.fixture
def photograph(tmp_path):
    """A picture that is wider than high."""
    path = tmp_path / "photograph.png"
    Image.linear_gradient("L").resize((320, 240)).convert("RGB").save(path)
    return path
