"""BlendedMVS folders: cameras, depth maps as depths, points and masks; PFM files."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from lumigraph import datasets
from lumigraph.core.errors import DataError
from lumigraph.datasets.depth_maps import pfm_size, read_pfm

WIDTH, HEIGHT, FOCAL, COUNT = 12, 10, 15.0, 6
RADIUS = 1.3


def write_pfm(path: Path, values: np.ndarray, *, little: bool = True) -> None:
    header = f"Pf\n{values.shape[1]} {values.shape[0]}\n{'-' if little else ''}1.0\n"
    content = values[::-1].astype("<f4" if little else ">f4").tobytes()
    path.write_bytes(header.encode() + content)


def sphere_depth(pose: np.ndarray) -> np.ndarray:
    """Depth (H, W) of a ball of RADIUS about the origin, 0 beside it; centres at whole numbers."""
    x, y = np.meshgrid(np.arange(WIDTH) + 0.5 - WIDTH / 2, np.arange(HEIGHT) + 0.5 - HEIGHT / 2)
    rays = np.stack([x / FOCAL, y / FOCAL, np.ones_like(x)], axis=-1) @ pose[:3, :3].T
    origin = pose[:3, 3]
    a, b = (rays**2).sum(-1), rays @ origin
    under = b**2 - a * (origin @ origin - RADIUS**2)
    return np.where(under > 0, (-b - np.sqrt(np.maximum(under, 0))) / a, 0)


@pytest.fixture
def folder(capture) -> Path:
    """Six cameras around a ball, in the layout of the release."""
    root = capture.root
    capture.images("blended_images", "{:08d}.jpg")
    (root / "cams").mkdir()
    (root / "rendered_depth_maps").mkdir()
    lens = np.array([[FOCAL, 0, WIDTH / 2 - 0.5], [0, FOCAL, HEIGHT / 2 - 0.5], [0, 0, 1]])
    for index, pose in enumerate(capture.poses):
        rows = [" ".join(f"{x:.12g}" for x in row) for row in np.linalg.inv(pose)]
        inner = [" ".join(f"{x:.12g}" for x in row) for row in lens]
        lines = ["extrinsic", *rows, "", "intrinsic", *inner, "", "2.5 0.02 128 5.04"]
        (root / f"cams/{index:08d}_cam.txt").write_text("\n".join(lines) + "\n")
        write_pfm(root / f"rendered_depth_maps/{index:08d}.pfm", sphere_depth(pose))
    (root / "cams/pair.txt").write_text("6\n0\n1 1 0.5\n")
    return root


def with_masked_copies(folder: Path) -> Path:
    for image in list((folder / "blended_images").iterdir()):
        shutil.copy(image, image.with_name(f"{image.stem}_masked.jpg"))
    return folder


def test_cameras_and_depths_agree(folder, capture) -> None:
    scene = datasets.load(folder)
    assert len(scene.cameras) == COUNT and scene.masks is None and not scene.notes
    assert [scene.images.name(index) for index in (0, 5)] == [
        "blended_images/00000000.jpg",
        "blended_images/00000005.jpg",
    ]
    for index in range(COUNT):
        pixels, _ = scene.cameras.project(
            scene.normalization.apply(torch.from_numpy(capture.points)).float(), index
        )
        np.testing.assert_allclose(pixels, capture.project(capture.points, index), atol=2e-3)
        depth = scene.depths.load(index)
        rays = scene.cameras.image_rays(index)
        points = rays.points(depth.reshape(-1) / scene.cameras.depth_factors(rays))
        found = scene.to_source(points[depth.reshape(-1) > 0])
        assert len(found) > 20
        assert torch.allclose(found.norm(dim=1), torch.tensor(RADIUS).to(found), atol=1e-4)


def test_the_depth_maps_give_points_and_the_place(folder) -> None:
    scene = datasets.load(folder)
    inside = ((scene.points.positions >= -1) & (scene.points.positions <= 1)).all(dim=1)
    assert float(inside.float().mean()) > 0.9  # the cube holds the ball
    where = scene.to_source(scene.points.positions)
    assert torch.allclose(where.norm(dim=1), torch.tensor(RADIUS).to(where), atol=1e-4)
    shutil.rmtree(folder / "rendered_depth_maps")
    bare = datasets.load(folder)
    assert bare.depths is None and bare.points is None and not bare.notes


def test_masked_copies_turn_the_depth_maps_into_masks(folder) -> None:
    scene = datasets.load(with_masked_copies(folder))
    assert len(scene.cameras) == COUNT and "masked" not in scene.images.name(0)
    mask = scene.masks.load(2)
    assert mask.dtype == torch.bool and torch.equal(mask, scene.depths.load(2) > 0)
    assert 0.1 < float(mask.float().mean()) < 0.9
    for image in (folder / "blended_images").glob("*[0-9].jpg"):
        image.unlink()
    alone = datasets.load(folder)
    assert len(alone.cameras) == COUNT and alone.images.name(0).endswith("_masked.jpg")
    shutil.rmtree(folder / "rendered_depth_maps")
    (note,) = datasets.load(folder).notes
    assert "rendered_depth_maps" in note


def test_reduced_images_have_reduced_depths(folder) -> None:
    full, half = datasets.load(folder), datasets.load(folder, image_scale=0.5)
    assert half.depths.load(1).shape == (5, 6)
    values = set(full.depths.load(1).flatten().tolist())
    assert set(half.depths.load(1).flatten().tolist()) <= values  # none is a mean of two


def test_pfm_in_both_byte_orders_and_what_is_unknown(tmp_path) -> None:
    values = np.array([[1.0, 2.5, np.inf], [np.nan, -3.0, 0.0]])
    for little in (True, False):
        write_pfm(tmp_path / "a.pfm", values, little=little)
        assert pfm_size(tmp_path / "a.pfm") == (3, 2)
        assert read_pfm(tmp_path / "a.pfm").tolist() == [[1.0, 2.5, 0.0], [0.0, 0.0, 0.0]]


def edit(path: Path, old: str, new: str) -> None:
    path.write_text(path.read_text().replace(old, new, 1))


@pytest.mark.parametrize(
    ("old", "new", "parts"),
    [
        ("extrinsic", "pose", ("expected 'extrinsic'",)),
        ("intrinsic", "intrinsic x", ("not a camera file",)),
        ("2.5 0.02 128 5.04", "2.5", ("the least depth and the step",)),
        ("2.5 0.02 128 5.04", "2.5 0.02 128 1.0", ("depths from 2.5 to 1",)),
        ("15 0", "-15 0", ("focal lengths must be above zero",)),
    ],
)
def test_broken_camera_files(folder, old, new, parts) -> None:
    file = folder / "cams/00000003_cam.txt"
    edit(file, old, new)
    with pytest.raises(DataError) as caught:
        datasets.load(folder)
    for part in ("00000003_cam.txt", *parts):
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)


def test_broken_and_missing_depth_maps(folder) -> None:
    file = folder / "rendered_depth_maps/00000002.pfm"
    write_pfm(file, np.ones((10, 20)))
    with pytest.raises(DataError, match=r"00000002.pfm: the depth map has 20x10 pixels"):
        datasets.load(folder)
    file.unlink()
    scene = datasets.load(folder)
    assert scene.depths is None and "5 of 6 images have a depth map" in scene.notes[0]
    file = folder / "rendered_depth_maps/00000001.pfm"
    file.write_bytes(file.read_bytes()[:60])
    with pytest.raises(DataError, match=r"00000001.pfm: the file is cut short"):
        datasets.load(folder)
    file.write_bytes(b"P6\n12 10\n255\n")
    with pytest.raises(DataError, match=r"00000001.pfm: not a PFM file"):
        datasets.load(folder)


def test_missing_images_are_noted(folder) -> None:
    (folder / "blended_images/00000004.jpg").unlink()
    scene = datasets.load(folder)
    assert len(scene.cameras) == 5 and "00000004.jpg" in scene.notes[0]
