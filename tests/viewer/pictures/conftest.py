"""Shapes and scenes to draw, small pictures, and a skip where nothing can be drawn."""

import numpy as np
import pytest
import torch
import trimesh

from lumigraph.core import Cameras, MemoryImages, PointCloud, Scene, cube
from lumigraph.core.transforms import look_at
from lumigraph.export.mesh_reading import TriangleMesh
from lumigraph.viewer.pictures.window import CANNOT_DRAW, drawing


@pytest.fixture(scope="session", autouse=True)
def can_draw():
    """Pictures need PyVista and an OpenGL without a display; `.ci/run` insists on both."""
    try:
        with drawing():
            pass
    except CANNOT_DRAW as error:
        pytest.skip(str(error))


def make_box(size=1.0, *, at=(0.0, 0.0, 0.0), color=(220, 20, 20)) -> TriangleMesh:
    shape = trimesh.creation.box(extents=(size, size, size))
    colors = np.tile(np.array(color, np.uint8), (8, 1))
    return TriangleMesh.of(shape.vertices + np.array(at), shape.faces, colors=colors)


def make_ring(count=8, **changes) -> Scene:
    """Cameras on a circle that look at the origin."""
    angles = torch.arange(count) * (2 * torch.pi / count)
    eyes = torch.stack([4 * angles.cos(), 4 * angles.sin(), torch.full((count,), 1.5)], dim=-1)
    poses = look_at(eyes, torch.zeros(3), up=(0.0, 0.0, 1.0))
    positions = torch.tensor([[0.0, 0, 0], [0.3, 0, 0], [500.0, 0, 0]])
    colors = torch.tensor([[220, 20, 20]] * 3, dtype=torch.uint8)
    parts = {
        "name": "ring",
        "source": "memory",
        "cameras": Cameras.from_intrinsics(poses, 64, 48, 60.0),
        "splits": {"train": torch.arange(0, count, 2), "test": torch.arange(1, count, 2)},
        "bounds": cube(torch.zeros(3), 2.0),
        "images": MemoryImages([torch.zeros(48, 64, 3, dtype=torch.uint8)] * count),
        "points": PointCloud(positions, colors),
    }
    return Scene(**{**parts, **changes})


@pytest.fixture
def box_mesh():
    """A function that makes a red cube."""
    return make_box


@pytest.fixture
def ring_scene():
    """A function that makes a scene of cameras around the origin."""
    return make_ring
