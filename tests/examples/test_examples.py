"""Every example runs, headless and within seconds (`--quick`); scenes on tiny folders."""

import json
import math
import runpy
import sys
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
import torch

from lumigraph.core.transforms import look_at, quaternion_from_rotation

EXAMPLES = Path(__file__).parents[2] / "examples"
SCENES = sorted(path.stem for path in (EXAMPLES / "scenes").glob("*.py"))
LESSONS = sorted(path.name for path in (EXAMPLES / "lessons").glob("*.py"))
MOST_LINES = 100
SIDE, FOCAL = 64, 90.0


def ring(count: int) -> list[np.ndarray]:
    """4x4 poses of cameras around the origin, x right, y down, z forward."""
    angles = [2 * math.pi * index / count for index in range(count)]
    eyes = [torch.tensor([4 * math.cos(a), 4 * math.sin(a), 1.0]) for a in angles]
    return [look_at(eye, torch.zeros(3), up=[0.0, 0.0, 1.0]).double().numpy() for eye in eyes]


def picture(index: int, *, alpha: bool) -> np.ndarray:
    y, x = np.mgrid[0:SIDE, 0:SIDE] / SIDE
    inside = np.hypot(x - 0.5, y - 0.5) < 0.3
    color = np.stack([x, y, np.full_like(x, index / 10), inside], axis=-1)
    return (color[..., : 4 if alpha else 3] * 255).astype(np.uint8)


def write_frames(
    folder: Path, name: str, count: int, *, alpha: bool, suffix: str, timed: bool = False, **top
) -> None:
    """A transforms file with its pictures; axes as in Blender. With times, one for each frame."""
    frames = []
    (folder / "images").mkdir(parents=True, exist_ok=True)
    for index, pose in enumerate(ring(count)):
        file = f"images/{name}_{index}"
        iio.imwrite(folder / f"{file}.png", picture(index, alpha=alpha))
        matrix = (pose * np.array([1.0, -1.0, -1.0, 1.0])).tolist()
        frame = {"file_path": f"{file}{suffix}", "transform_matrix": matrix}
        frames.append({**frame, "time": index / (count - 1)} if timed else frame)
    (folder / f"{name}.json").write_text(json.dumps({**top, "frames": frames}))


def blender_folder(folder: Path, *, timed: bool = False) -> Path:
    for split, count in (("train", 6), ("test", 2)):
        angle = 2 * math.atan(SIDE / 2 / FOCAL)
        name = f"transforms_{split}"
        write_frames(folder, name, count, alpha=True, suffix="", timed=timed, camera_angle_x=angle)
    return folder


def dynamic_folder(folder: Path) -> Path:
    return blender_folder(folder, timed=True)


def transforms_folder(folder: Path) -> Path:
    lens = {"fl_x": FOCAL, "w": SIDE, "h": SIDE, "k1": -0.1, "k2": 0.02, "p1": 1e-3}
    write_frames(folder, "transforms", 9, alpha=False, suffix=".png", aabb_scale=4, **lens)
    return folder


def llff_folder(folder: Path) -> Path:
    (folder / "images").mkdir(parents=True)
    rows = []
    for index in range(9):
        iio.imwrite(folder / "images" / f"{index}.png", picture(index, alpha=False))
        # axes down, right, backward; a row of cameras that look the same way
        matrix = np.array([[0.0, 1, 0, index / 9], [-1, 0, 0, 0], [0, 0, 1, 0]])
        matrix = np.concatenate([matrix, [[SIDE], [SIDE], [FOCAL]]], axis=1)
        rows.append(np.concatenate([matrix.ravel(), [2.0, 6.0]]))
    np.save(folder / "poses_bounds.npy", np.stack(rows))
    return folder


def colmap_folder(folder: Path) -> Path:
    """COLMAP's text files: one lens a picture, a few points."""
    model = folder / "sparse" / "0"
    model.mkdir(parents=True)
    (folder / "images").mkdir()
    cameras, images = [], []
    for index, pose in enumerate(ring(9)):
        iio.imwrite(folder / "images" / f"{index}.png", picture(index, alpha=False))
        cameras.append(
            f"{index + 1} SIMPLE_RADIAL {SIDE} {SIDE} {FOCAL} {SIDE / 2} {SIDE / 2} -0.05"
        )
        seen = np.linalg.inv(pose)
        turn = quaternion_from_rotation(torch.from_numpy(seen[:3, :3]))
        numbers = [*turn.tolist(), *seen[:3, 3].tolist()]
        place = " ".join(map(str, numbers))
        images.append(f"{index + 1} {place} {index + 1} {index}.png\n0 0 -1")
    points = [
        f"{n + 1} {x} {y} {z} 200 100 50 0.5 1 0 2 0"
        for n, (x, y, z) in enumerate(np.random.default_rng(0).uniform(-1, 1, (60, 3)))
    ]
    for name, rows in (("cameras", cameras), ("images", images), ("points3D", points)):
        (model / f"{name}.txt").write_text("\n".join(rows) + "\n")
    return folder


def neus_folder(folder: Path) -> Path:
    """Projections, the sphere of the object, pictures and masks."""
    entries = {}
    for name in ("image", "mask"):
        (folder / name).mkdir(parents=True)
    lens = np.array([[FOCAL, 0, SIDE / 2, 0], [0, FOCAL, SIDE / 2, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    for index, pose in enumerate(ring(9)):
        rgba = picture(index, alpha=True)
        iio.imwrite(folder / "image" / f"{index:03d}.png", rgba[..., :3])
        iio.imwrite(folder / "mask" / f"{index:03d}.png", rgba[..., 3])
        entries[f"world_mat_{index}"] = lens @ np.linalg.inv(pose)
        entries[f"scale_mat_{index}"] = np.eye(4)
    np.savez(folder / "cameras_sphere.npz", **entries)
    return folder


def frames_folder(folder: Path) -> Path:
    """Two moments, each as in `neus_folder`."""
    for name in ("frame_000", "frame_001"):
        neus_folder(folder / name)
    return folder


FOLDERS = {
    "dynamic_surface": frames_folder,
    "dtu": neus_folder,
    "dynamic_gaussians": dynamic_folder,
    "lego_gaussians": blender_folder,
    "can_gaussians": colmap_folder,
    "demo": blender_folder,
    "lego": blender_folder,
    "fox": transforms_folder,
    "fern": llff_folder,
}


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run a script in a fresh folder, as `python script.py words` would."""
    monkeypatch.chdir(tmp_path)

    def start(script: Path, *words: str | Path) -> None:
        monkeypatch.setattr(sys, "argv", [script.name, *map(str, words)])
        runpy.run_path(str(script), run_name="__main__")

    return start


@pytest.mark.parametrize("name", SCENES)
def test_scene_scripts_train_score_and_render(name, run, tmp_path, capsys):
    folder = FOLDERS[name](tmp_path / "data")
    run(EXAMPLES / "scenes" / f"{name}.py", folder, "--quick", "--out", tmp_path / "out")
    assert "test views: PSNR" in capsys.readouterr().out
    assert list((tmp_path / "out").glob("*.mp4"))
    assert json.loads((tmp_path / "out" / "evaluate.json").read_text())["psnr"] > 0


@pytest.mark.parametrize("name", LESSONS)
def test_lessons_run(name, run, capsys):
    words = [] if name.startswith("01_") else ["--quick"]
    run(EXAMPLES / "lessons" / name, *words)
    assert capsys.readouterr().out


def test_the_camera_path_of_the_lesson_renders_a_run(run, tmp_path):
    folder = blender_folder(tmp_path / "data")
    run(EXAMPLES / "scenes" / "lego.py", folder, "--quick", "--out", tmp_path / "out")
    run(EXAMPLES / "lessons" / "05_camera_path.py", tmp_path / "out", "--quick")
    assert (tmp_path / "path.mp4").is_file()


def test_a_missing_folder_is_one_line(run, tmp_path):
    with pytest.raises(SystemExit, match=r"^error: .*nothing: no such folder"):
        run(EXAMPLES / "scenes" / "fox.py", tmp_path / "nothing", "--quick")


@pytest.mark.parametrize("script", sorted(EXAMPLES.rglob("*.py")), ids=lambda path: path.name)
def test_examples_are_short_and_listed(script):
    assert len(script.read_text().splitlines()) <= MOST_LINES
    assert str(script.relative_to(EXAMPLES)) in (EXAMPLES / "README.md").read_text()
