"""Photographs beside what is rendered there, and pictures put together."""

from dataclasses import dataclass

import imageio.v3 as imageio
import numpy as np
import pytest
import torch

from lumigraph.core import Cameras, Frame, InputError, MemoryImages, Scene, cube
from lumigraph.export import PathOptions, comparison
from lumigraph.export.frame_layout import arranged


@dataclass
class FakeRun:
    """Renders the camera's x position as red."""

    pictures: Scene

    def scene(self) -> Scene:
        return self.pictures

    def model(self, device=None):
        return self

    def render(self, cameras: Cameras, *, channels=()) -> Frame:
        width, height = cameras.size(0)
        color = torch.zeros(height, width, 3)
        color[..., 0] = float(cameras.positions[0, 0])
        flat = torch.ones(height, width)
        return Frame(color, flat, flat * 2)


@pytest.fixture
def run() -> FakeRun:
    """Three photographs, green by their number; the last is upright, half transparent."""
    poses = torch.eye(4).repeat(3, 1, 1)
    poses[:, 0, 3] = torch.tensor([0.0, 0.2, 0.4])
    sizes = torch.tensor([40, 40, 20]), torch.tensor([20, 20, 40])
    cameras = Cameras.from_intrinsics(poses, *sizes, 30.0)
    images = []
    for index, (width, height) in enumerate(zip(*sizes, strict=True)):
        image = torch.zeros(int(height), int(width), 4, dtype=torch.uint8)
        image[..., 1] = 100 + index
        image[..., 3] = 128 if index == 2 else 255
        images.append(image)
    splits = {"train": torch.tensor([0, 2]), "test": torch.tensor([1])}
    return FakeRun(
        Scene(
            "three", "memory", cameras, splits, cube(torch.zeros(3), 2.0),
            images=MemoryImages(images), background="white", has_alpha=True,
        )
    )  # fmt: skip


def shown(folder) -> np.ndarray:
    return np.stack([imageio.imread(path) for path in sorted(folder.iterdir())])


def test_photograph_left_rendering_right(run, tmp_path):
    report = comparison(run, out=tmp_path / "a")
    assert report.frames == 1
    (frame,) = shown(tmp_path / "a")
    assert frame.shape == (20, 80, 3)
    assert (frame[:, :40] == (0, 101, 0)).all() and (frame[:, 40:] == (51, 0, 0)).all()


def test_all_views_on_one_size(run, tmp_path):
    comparison(run, out=tmp_path / "a", views="all", options=PathOptions(channels=("rgb", "depth")))
    frames = shown(tmp_path / "a")
    assert frames.shape == (3, 20, 120, 3)
    # the upright photograph stands in the middle, over the scene's white background
    upright = frames[2, :, :40]
    assert (upright[:, :15] == 0).all() and (upright[:, 25:] == 0).all()
    assert (np.abs(upright[:, 15:25].astype(int) - (127, 178, 127)) <= 1).all()
    assert (frames[2, :, 55:65, 0] == 102).all() and (frames[2, :, 40:55] == 0).all()


def test_each_picture_in_a_folder_of_its_own(run, tmp_path):
    report = comparison(run, out=tmp_path / "a", options=PathOptions(layout="separate"))
    assert [path.name for path in report.paths] == ["photograph", "rgb"]
    assert shown(tmp_path / "a" / "photograph").shape == (1, 20, 40, 3)


def test_what_cannot_be_compared(run, tmp_path):
    with pytest.raises(InputError, match="'evening' is no such split; available: train, test"):
        comparison(run, out=tmp_path / "a", views="evening")
    run.pictures = Scene(
        "none", "memory", run.pictures.cameras, run.pictures.splits, run.pictures.bounds
    )
    with pytest.raises(InputError, match="memory: has no photographs to compare with"):
        comparison(run, out=tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("count", "layout", "shape"),
    [(1, "mosaic", (2, 3)), (2, "mosaic", (2, 6)), (4, "mosaic", (4, 6)), (5, "mosaic", (4, 9)),
     (3, "row", (2, 9))],
)  # fmt: skip
def test_arranged(count, layout, shape):
    pictures = [np.full((2, 3, 3), index + 1, np.uint8) for index in range(count)]
    whole = arranged(pictures, layout)
    assert whole.shape == (*shape, 3)
    columns = shape[1] // 3
    for index, picture in enumerate(pictures):
        row, column = divmod(index, columns)
        place = whole[2 * row : 2 * row + 2, 3 * column : 3 * column + 3]
        assert np.array_equal(place, picture)
    assert (whole == 0).sum() == (shape[0] // 2 * columns - count) * 18


def test_unknown_layout():
    with pytest.raises(InputError, match="choose from row, mosaic, separate"):
        PathOptions(layout="circle")
