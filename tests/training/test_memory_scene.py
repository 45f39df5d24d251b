"""A scene that lies on no disk: trained, scored and rendered in the process that holds it."""

import pytest
import torch

from lumigraph.core import Cameras, DataError, MemoryImages, Scene, cube
from lumigraph.core.transforms import look_at
from lumigraph.training import Run, evaluate, train

SIDE = 16


@pytest.fixture
def memory_scene():
    angles = torch.linspace(0, 5.5, 6)
    eyes = torch.stack([4 * angles.cos(), 4 * angles.sin(), torch.ones(6)], dim=1)
    poses = look_at(eyes, torch.zeros(3), up=[0.0, 0.0, 1.0])
    return Scene(
        name="memory",
        source="memory",
        cameras=Cameras.from_intrinsics(poses, SIDE, SIDE, 20.0),
        splits={"train": torch.arange(4), "test": torch.tensor([4, 5])},
        bounds=cube(torch.zeros(3), 3.0),
        images=MemoryImages([torch.full((SIDE, SIDE, 3), 90, dtype=torch.uint8)] * 6),
    )


def test_a_scene_in_memory_is_trained_scored_and_rendered(memory_scene, tiny, tmp_path):
    run = train(memory_scene, tiny, out=tmp_path / "run")
    assert evaluate(run)["views"] == 2
    assert run.model().render(memory_scene.cameras[4]).color.shape == (SIDE, SIDE, 3)


def test_its_run_opened_again_says_that_the_data_is_gone(memory_scene, tiny, tmp_path):
    train(memory_scene, tiny, out=tmp_path / "run")
    with pytest.raises(DataError, match="memory: no such folder"):
        Run.open(tmp_path / "run").scene()
