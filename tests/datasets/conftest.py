"""Tiny scene folders in every format, and where real scenes may lie.

All tiny folders hold the same six pinhole cameras on a ring around the origin, so one NumPy
projection (`TinyCapture.project`) judges every reader.
"""

import json
import math
import os
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

WIDTH, HEIGHT, FOCAL = 12, 10, 15.0
COUNT = 6


class TinyCapture:
    """Six cameras with random pictures, written in the format that a test asks for."""

    def __init__(self, root: Path, *, alpha: bool = False) -> None:
        self.root = root
        random = np.random.default_rng(3)
        self.pixels = random.integers(
            0, 256, (COUNT, HEIGHT, WIDTH, 4 if alpha else 3), dtype=np.uint8
        )
        self.poses = np.stack([_ring_pose(index) for index in range(COUNT)])
        self.points = random.uniform(-0.8, 0.8, (20, 3))
        self.colors = random.integers(0, 256, (20, 3), dtype=np.uint8)

    @property
    def opengl(self) -> np.ndarray:
        return self.poses * np.array([1.0, -1.0, -1.0, 1.0])

    def project(self, points: np.ndarray, index: int) -> np.ndarray:
        """Pixels (P, 2) of points in the capture's frame, pixel centres at +0.5."""
        pose = self.poses[index]
        local = (points - pose[:3, 3]) @ pose[:3, :3]
        return FOCAL * local[:, :2] / local[:, 2:] + np.array([WIDTH / 2, HEIGHT / 2])

    def images(self, folder: str, pattern: str = "{:03d}.png") -> list[str]:
        """Write the pictures and return their names."""
        (self.root / folder).mkdir(parents=True, exist_ok=True)
        names = [pattern.format(index) for index in range(COUNT)]
        for name, pixels in zip(names, self.pixels, strict=True):
            Image.fromarray(pixels).save(self.root / folder / name)
        return names

    def blender(self) -> Path:
        self.images("all", "r_{}.png")
        angle = 2.0 * math.atan(0.5 * WIDTH / FOCAL)
        for split, members in (("train", (0, 1, 2, 3)), ("val", (4,)), ("test", (5,))):
            frames = [
                {"file_path": f"./all/r_{i}", "transform_matrix": self.opengl[i].tolist()}
                for i in members
            ]
            table = {"camera_angle_x": angle, "frames": frames}
            (self.root / f"transforms_{split}.json").write_text(json.dumps(table))
        return self.root

    def transforms(self, *, frame: dict | None = None, **top: object) -> Path:
        names = self.images("images")
        frames = [
            {"file_path": f"images/{name}", "transform_matrix": pose.tolist(), **(frame or {})}
            for name, pose in zip(names, self.opengl, strict=True)
        ]
        table = {"fl_x": FOCAL, "w": WIDTH, "h": HEIGHT, **top, "frames": frames}
        self.write_transforms(table)
        return self.root

    def write_transforms(self, table: dict) -> None:
        (self.root / "transforms.json").write_text(json.dumps(table))

    def read_transforms(self) -> dict:
        return json.loads((self.root / "transforms.json").read_text())

    def llff(self) -> Path:
        self.images("images")
        rows = []
        for pose in self.poses:
            right, down, forward, position = pose[:3].T
            hwf = np.array([HEIGHT, WIDTH, FOCAL])
            matrix = np.stack([down, right, -forward, position, hwf], axis=1)
            rows.append(np.concatenate([matrix.ravel(), [2.0, 6.0]]))
        np.save(self.root / "poses_bounds.npy", np.stack(rows))
        return self.root

    def neus(self, *, radius: float = 1.5) -> Path:
        self.images("image")
        self.save_neus(self.neus_matrices(radius=radius))
        return self.root

    def neus_matrices(self, *, radius: float = 1.5) -> dict[str, np.ndarray]:
        # Pixel centres at whole numbers: the principal point moves by half a pixel.
        center = (WIDTH / 2 - 0.5, HEIGHT / 2 - 0.5)
        lens = np.array([[FOCAL, 0, center[0]], [0, FOCAL, center[1]], [0, 0, 1]])
        matrices = {}
        for index, pose in enumerate(self.poses):
            world = np.eye(4)
            # A projection is known up to a factor of either sign.
            world[:3] = -2.5 * lens @ np.linalg.inv(pose)[:3]
            matrices[f"world_mat_{index}"] = world
            matrices[f"scale_mat_{index}"] = np.diag([radius, radius, radius, 1.0])
        return matrices

    def save_neus(self, matrices: dict[str, np.ndarray]) -> None:
        np.savez(self.root / "cameras_sphere.npz", **matrices)

    def colmap(
        self,
        *,
        binary: bool = True,
        model: str = "PINHOLE",
        parameters: tuple = (FOCAL, FOCAL, WIDTH / 2, HEIGHT / 2),
    ) -> Path:
        names = self.images("images")
        folder = self.root / "sparse" / "0"
        folder.mkdir(parents=True)
        (_write_binary if binary else _write_text)(self, folder, names, (model, parameters))
        return self.root


@pytest.fixture
def capture(tmp_path: Path) -> TinyCapture:
    """A tiny capture that has no files yet."""
    return TinyCapture(tmp_path / "scene")


@pytest.fixture
def alpha_capture(tmp_path: Path) -> TinyCapture:
    """The same with an alpha channel in its pictures."""
    return TinyCapture(tmp_path / "scene", alpha=True)


@pytest.fixture(scope="session")
def real_data():
    """Path of a real scene by name; skips the test where the scenes are not at hand."""
    beside = Path(__file__).resolve().parents[2].parent / "shared" / "data"
    root = Path(os.environ.get("LUMIGRAPH_TEST_DATA", beside))

    def find(name: str) -> Path:
        if not (root / name).exists():
            pytest.skip(f"test scene {name} not found; set LUMIGRAPH_TEST_DATA to its parent")
        return root / name

    return find


def _ring_pose(index: int) -> np.ndarray:
    angle = 2.0 * math.pi * index / COUNT
    position = np.array([4.0 * math.cos(angle), 4.0 * math.sin(angle), 0.7 + 0.1 * index])
    forward = -position / np.linalg.norm(position)
    right = np.cross(forward, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right)
    pose = np.eye(4)
    pose[:3] = np.stack([right, np.cross(forward, right), forward, position], axis=1)
    return pose


def _quaternion(rotation: np.ndarray) -> np.ndarray:
    """Scalar first, from the eigenvector of Bar-Itzhack's matrix (works for every rotation)."""
    r = rotation
    k = np.array(
        [
            [r[0, 0] + r[1, 1] + r[2, 2], 0, 0, 0],
            [r[2, 1] - r[1, 2], r[0, 0] - r[1, 1] - r[2, 2], 0, 0],
            [r[0, 2] - r[2, 0], r[0, 1] + r[1, 0], r[1, 1] - r[0, 0] - r[2, 2], 0],
            [r[1, 0] - r[0, 1], r[0, 2] + r[2, 0], r[1, 2] + r[2, 1], r[2, 2] - r[0, 0] - r[1, 1]],
        ]
    )
    return np.linalg.eigh(k)[1][:, -1]


def _world_to_camera(pose: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    inverse = np.linalg.inv(pose)
    return _quaternion(inverse[:3, :3]), inverse[:3, 3]


MODEL_NUMBERS = {
    "SIMPLE_PINHOLE": 0,
    "PINHOLE": 1,
    "SIMPLE_RADIAL": 2,
    "RADIAL": 3,
    "OPENCV": 4,
    "OPENCV_FISHEYE": 5,
    "FULL_OPENCV": 6,
    "FOV": 7,
}


def _write_binary(tiny: TinyCapture, folder: Path, names: list[str], lens: tuple) -> None:
    model, parameters = lens
    data = struct.pack("<Q", 1) + struct.pack("<iiQQ", 7, MODEL_NUMBERS[model], WIDTH, HEIGHT)
    (folder / "cameras.bin").write_bytes(data + struct.pack(f"<{len(parameters)}d", *parameters))
    data = struct.pack("<Q", COUNT)
    for index in reversed(range(COUNT)):
        quaternion, translation = _world_to_camera(tiny.poses[index])
        data += struct.pack("<i7di", index + 1, *quaternion, *translation, 7)
        data += names[index].encode() + b"\0" + struct.pack("<Q", len(tiny.points))
        for number, pixel in enumerate(tiny.project(tiny.points, index)):
            data += struct.pack("<ddq", *pixel, number + 100)
    (folder / "images.bin").write_bytes(data)
    data = struct.pack("<Q", len(tiny.points))
    for number, (point, color) in enumerate(zip(tiny.points, tiny.colors, strict=True)):
        data += struct.pack("<Q3d3Bd", number + 100, *point, *color.tolist(), 0.5)
        data += struct.pack("<Qiiii", 2, 1, number, 2, number)
    (folder / "points3D.bin").write_bytes(data)


def _write_text(tiny: TinyCapture, folder: Path, names: list[str], lens: tuple) -> None:
    model, parameters = lens
    row = [7, model, WIDTH, HEIGHT, *parameters]
    (folder / "cameras.txt").write_text("# Camera list\n" + " ".join(map(str, row)) + "\n")
    lines = ["# Image list"]
    for index, name in enumerate(names):
        quaternion, translation = _world_to_camera(tiny.poses[index])
        lines.append(" ".join(map(str, [index + 1, *quaternion, *translation, 7, name])))
        pixels = tiny.project(tiny.points, index)
        seen = [f"{x} {y} {number + 100}" for number, (x, y) in enumerate(pixels)]
        # One image without observations: its second line is empty.
        lines.append("" if index == 2 else " ".join(seen))
    (folder / "images.txt").write_text("\n".join(lines) + "\n")
    lines = ["# Points"]
    for number, (point, color) in enumerate(zip(tiny.points, tiny.colors, strict=True)):
        lines.append(" ".join(map(str, [number + 100, *point, *color, 0.5, 1, number, 2, number])))
    (folder / "points3D.txt").write_text("\n".join(lines) + "\n")
