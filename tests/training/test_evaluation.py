"""Scores of pictures: what counts inside the outline of the object."""

import dataclasses
import json
import math

import pytest
import torch

from lumigraph import training
from lumigraph.core import Cameras, Frame, MemoryImages, Scene, cube
from lumigraph.training.evaluation import protocol_name
from lumigraph.training.report import write_report

INSIDE, OUTSIDE = 0.1, 0.5  # errors of the rendering


class FakeRun:
    """Renders gray pictures that err by a known amount inside the object and around it."""

    def __init__(self, scene, path):
        self.path, self._scene = path, scene
        self.config = training.train_config("neus")

    def scene(self):
        return self._scene

    def model(self, device=None):
        return self

    def render(self, camera, channels=()):
        color = torch.full((16, 16, 3), 1 - OUTSIDE)
        color[4:8, 4:12] = 0.2 + INSIDE
        return Frame(color, torch.ones(16, 16), torch.ones(16, 16))

    def add_timing(self, stage, seconds):
        pass


@pytest.fixture
def scene():
    image = torch.full((16, 16, 4), 51, dtype=torch.uint8)  # 0.2
    image[..., 3] = 0
    image[4:8, 4:12, 3] = 255
    cameras = Cameras.from_intrinsics(torch.eye(4), 16, 16, 16.0)
    splits = {"test": torch.tensor([0])}
    images = MemoryImages([image])
    bounds = cube(torch.zeros(3), 2.0)
    return Scene("s", "memory", cameras, splits, bounds, images=images, has_alpha=True)


def decibels(squared_error):
    return -10 * math.log10(squared_error)


def test_psnr_inside_the_outline_leaves_out_the_background(scene, tmp_path):
    scores = training.evaluate(FakeRun(scene, tmp_path))
    share = 32 / 256
    whole = share * INSIDE**2 + (1 - share) * OUTSIDE**2
    assert scores["psnr"] == pytest.approx(decibels(whole), abs=1e-3)
    assert scores["psnr_masked"] == pytest.approx(decibels(INSIDE**2), abs=1e-3)
    assert scores["per_view"][0]["psnr_masked"] == scores["psnr_masked"]
    assert scores["protocol"].endswith("psnr_masked where alpha >= 0.5")
    assert json.loads((tmp_path / "evaluate.json").read_text()) == scores
    (tmp_path / "config.yaml").write_text("method: neus\n")
    assert "test PSNR inside the outline" in write_report(tmp_path).read_text()


class Masks:
    def __init__(self, mask):
        self._mask = mask

    def __len__(self):
        return 1

    def load(self, index):
        return self._mask


def test_masks_and_scenes_without_outline(scene, tmp_path):
    mask = scene.outline(0)
    opaque = MemoryImages([scene.images.load(0)[..., :3]])
    masked = dataclasses.replace(scene, images=opaque, masks=Masks(mask), has_alpha=False)
    scores = training.evaluate(FakeRun(masked, tmp_path))
    assert scores["psnr_masked"] == pytest.approx(decibels(INSIDE**2), abs=1e-3)
    assert protocol_name(masked, "test").endswith("psnr_masked where the mask")
    bare = dataclasses.replace(masked, masks=None)
    assert training.evaluate(FakeRun(bare, tmp_path))["psnr_masked"] is None
    assert "masked" not in protocol_name(bare, "test")
    empty = dataclasses.replace(masked, masks=Masks(torch.zeros_like(mask)))
    assert training.evaluate(FakeRun(empty, tmp_path))["psnr_masked"] is None
