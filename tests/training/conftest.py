"""A tiny Blender-format scene on disk: a shaded disc seen from a ring of cameras."""

import json
import math
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
import torch

from lumigraph.core.transforms import look_at
from lumigraph.training import NerfConfig, train_config

SIDE = 24
FOCAL_ANGLE = 0.8


def write_scene(folder: Path, views: int = 8) -> Path:
    y, x = np.mgrid[0:SIDE, 0:SIDE] / (SIDE - 1) - 0.5
    inside = np.hypot(x, y) < 0.3
    for split, count in (("train", views), ("test", 2)):
        frames = []
        for i in range(count):
            angle = 2 * math.pi * i / count
            eye = torch.tensor([4 * math.cos(angle), 4 * math.sin(angle), 1.0])
            pose = look_at(eye, torch.zeros(3), up=(0.0, 0.0, 1.0))
            matrix = torch.eye(4)
            matrix[: pose.shape[0]] = pose
            matrix = matrix @ torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0]))
            color = np.stack([0.5 + x, 0.5 + y, np.full_like(x, 0.3), inside], -1)
            name = f"{split}/r_{i}"
            (folder / split).mkdir(parents=True, exist_ok=True)
            iio.imwrite(folder / f"{name}.png", (color * 255).astype(np.uint8))
            frames.append({"file_path": f"./{name}", "transform_matrix": matrix.tolist()})
        record = {"camera_angle_x": FOCAL_ANGLE, "frames": frames}
        (folder / f"transforms_{split}.json").write_text(json.dumps(record))
    return folder


@pytest.fixture
def scene_folder(tmp_path: Path) -> Path:
    return write_scene(tmp_path / "scene")


@pytest.fixture
def tiny() -> NerfConfig:
    return train_config(
        "nerf",
        "tiny",
        steps=20,
        levels=3,
        features=2,
        log2_table_size=10,
        max_resolution=32,
        hidden_width=16,
        grid_resolution=16,
        march_steps=48,
        batch_samples=1024,
        occupancy_samples=256,
        log_every=5,
        device="cpu",
    )
