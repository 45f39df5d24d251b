"""Every mistake in a scene folder ends in one line that names the file and the way out."""

import json

import numpy as np
import pytest
from PIL import Image

from lumigraph import datasets
from lumigraph.core.errors import DataError, InputError


def refused(path, *parts: str, **options) -> None:
    """Loading raises one line that holds all the parts."""
    with pytest.raises(DataError) as caught:
        datasets.load(path, **options)
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message, message


def change(capture, edit, name: str = "transforms.json") -> None:
    """Edit the JSON file of a tiny capture in place."""
    file = capture.root / name
    table = json.loads(file.read_text())
    edit(table)
    file.write_text(json.dumps(table))


def test_missing_folder(tmp_path) -> None:
    refused(tmp_path / "nowhere", "nowhere", "no such folder", "check the path")


def test_unknown_format(tmp_path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    refused(tmp_path, str(tmp_path), "not a known scene format", "transforms.json", "convert")


def test_unknown_format_name(capture) -> None:
    refused(capture.blender(), "format 'blend' is not known", "colmap", format="blend")
    refused(capture.root, "is not of format 'colmap'", "sparse/0", format="colmap")


@pytest.mark.parametrize("key", ["frames", "fl_x"])
def test_json_with_a_missing_key(capture, key) -> None:
    folder = capture.transforms()
    change(capture, lambda table: table.pop(key))
    refused(folder, "transforms.json", key, "add")


@pytest.mark.parametrize("key", ["file_path", "transform_matrix"])
def test_frame_with_a_missing_key(capture, key) -> None:
    folder = capture.transforms()
    change(capture, lambda table: table["frames"][2].pop(key))
    refused(folder, "transforms.json: frames[2]", f"'{key}' is missing", "add it")


def test_blender_frame_without_a_pose(capture) -> None:
    folder = capture.blender()
    change(capture, lambda t: t["frames"][0].pop("transform_matrix"), "transforms_test.json")
    refused(folder, "transforms_test.json: frames[0]", "transform_matrix")


@pytest.mark.parametrize("content", ["{", "[1]", '{"frames": 3}', '{"frames": [1]}'])
def test_json_that_is_none(capture, content) -> None:
    folder = capture.transforms()
    (folder / "transforms.json").write_text(content)
    refused(folder, "transforms.json")


def test_no_frames(capture) -> None:
    folder = capture.transforms()
    change(capture, lambda table: table.update(frames=[]))
    refused(folder, "'frames' is empty")


@pytest.mark.parametrize(
    ("matrix", "what"),
    [
        (np.eye(3).tolist(), "shape is 3x3, expected 4x4 or 3x4"),
        ([[1, 2], [3]], "ragged"),
        ([["a"] * 4] * 4, "numbers"),
        (5, "a single value"),
        (np.diag([1.0, 1.0, -1.0, 1.0]).tolist(), "not a rotation"),
        (np.diag([1.0, 0.0, 1.0, 1.0]).tolist(), "length zero"),
    ],
)
def test_wrong_matrix(capture, matrix, what) -> None:
    folder = capture.transforms()
    change(capture, lambda table: table["frames"][3].update(transform_matrix=matrix))
    refused(folder, "frames[3] (images/003.png): transform_matrix", what)


def test_nan_pose(capture) -> None:
    folder = capture.transforms()
    change(capture, lambda t: t["frames"][1]["transform_matrix"][0].__setitem__(3, float("nan")))
    refused(folder, "frames[1] (images/001.png)", "NaN", "remove this view")


@pytest.mark.parametrize(
    ("top", "what"),
    [
        ({"fl_x": 0}, "focal length"),
        ({"fl_x": "wide"}, "'fl_x' is 'wide'"),
        ({"fl_x": float("inf")}, "finite number"),
        ({"w": 0}, "0x10 pixels"),
        ({"h": 0}, "12x0 pixels"),
        ({"w": 10}, "its camera is for 10x10"),
        ({"k1": None, "p1": "x"}, "'p1'"),
        ({"camera_model": "CUBE"}, "'CUBE' is not known; use one of"),
        ({"aabb_scale": 3}, "use 1, 2, 4"),
        ({"scale": 0}, "'scale' is 0.0"),
        ({"offset": [1, 2]}, "offset: matrix shape is 2, expected 3"),
        ({"applied_transform": np.diag([1.0, 2, 1, 1]).tolist()}, "applied_transform"),
        ({"applied_scale": -1}, "applied_scale"),
        ({"mask_path": "masks/none.png"}, "mask 'masks/none.png' not found"),
        ({"test_filenames": "images/000.png"}, "'test_filenames' must be a list"),
    ],
)
def test_wrong_values_at_the_top(capture, top, what) -> None:
    refused(capture.transforms(**top), str(capture.root), what)


def test_time_beyond_its_range(capture) -> None:
    folder = capture.transforms()
    change(capture, lambda t: [frame.update(time=2.0) for frame in t["frames"]])
    refused(folder, "time of images/000.png is 2.0", "within 0 and 1")


def test_truncated_image(capture) -> None:
    folder = capture.transforms()
    file = folder / "images" / "002.png"
    file.write_bytes(file.read_bytes()[:150])
    scene = datasets.load(folder)
    with pytest.raises(DataError, match=r"002\.png: cannot be decoded .* again or remove it"):
        scene.images.load(2)


def test_image_without_a_header(capture) -> None:
    folder = capture.transforms()
    (folder / "images" / "002.png").write_bytes(b"")
    refused(folder, "002.png: cannot be decoded")


def test_all_images_missing(capture) -> None:
    folder = capture.transforms()
    for file in (folder / "images").iterdir():
        file.unlink()
    refused(folder, "none of its 6 images exists", "images/000.png")


def test_mask_of_another_size(capture) -> None:
    folder = capture.transforms(mask_path="mask.png")
    Image.fromarray(np.zeros((5, 5), np.uint8)).save(folder / "mask.png")
    refused(folder, "mask.png: the mask has (5, 5) pixels", "(12, 10)")


def test_no_training_images_after_the_split(capture) -> None:
    refused(
        capture.transforms(),
        "no training images after the split (train 0, test 6)",
        "larger split_every",
        split_every=1,
    )


def test_given_split_without_training_images(capture) -> None:
    refused(capture.transforms(frame={"split": "test"}), "no training images", "split_every=8")


def test_blender_training_file_without_frames(capture) -> None:
    folder = capture.blender()
    change(capture, lambda table: table.update(frames=[]), "transforms_train.json")
    refused(folder, "no training images", "train 0")


@pytest.mark.parametrize("scale", [0.0, -1.0, 1.5, float("nan"), 0.01])
def test_resolution_of_zero(capture, scale) -> None:
    refused(capture.transforms(), "image_scale", image_scale=scale)


def test_wrong_options(capture) -> None:
    folder = capture.llff()
    refused(folder, "split_every is -1", split_every=-1)
    refused(folder, "test_views is 1;2: expected numbers with commas", test_views="1;2")
    refused(folder, "test_views asks for view 90", "counted from 0", test_views="1,90")
    refused(folder, "exclude each other", test_views="1", split_every=2)
    refused(folder, "image_budget_bytes is -1", image_budget_bytes=-1)
    refused(folder, "photos: no images there", image_folder="photos")
    refused("builtin:object", "one size", image_scale=0.5)


@pytest.mark.parametrize(
    ("rows", "what"),
    [
        (np.zeros((6, 15)), "shape is 6x15, expected Nx17"),
        (np.full((6, 17), np.nan), "row 0 holds NaN"),
        (np.ones((6, 17)), "near 1 and far 1"),
        (None, "not a readable NumPy file"),
    ],
)
def test_llff_rows(capture, rows, what) -> None:
    folder = capture.llff()
    file = folder / "poses_bounds.npy"
    if rows is None:
        file.write_bytes(file.read_bytes()[:40])
    else:
        np.save(file, rows)
    refused(folder, "poses_bounds.npy", what)


def test_llff_counts_and_shape(capture) -> None:
    folder = capture.llff()
    (folder / "images" / "005.png").unlink()
    refused(folder, "it has 6 poses", "5 images")
    Image.fromarray(np.zeros((12, 10, 3), np.uint8)).save(folder / "images" / "005.png")
    refused(folder, "005.png: the image is 10x12 pixels", "12x10")


@pytest.mark.parametrize(
    ("key", "value", "what"),
    [
        ("world_mat_3", np.eye(3), "world_mat_3: matrix shape is 3x3, expected 4x4 or 3x4"),
        ("world_mat_3", np.full((4, 4), np.nan), "world_mat_3: the matrix holds NaN"),
        ("world_mat_3", np.zeros((4, 4)), "world_mat_3: the matrix is singular"),
        ("scale_mat_0", np.diag([1.0, 2.0, 1.0, 1.0]), "scale_mat_0: matrix is not a similarity"),
        ("scale_mat_0", None, "'scale_mat_0' is missing"),
        ("world_mat_3", None, "it has 5 cameras"),
    ],
)
def test_neus_matrices(capture, key, value, what) -> None:
    folder = capture.neus()
    matrices = capture.neus_matrices()
    del matrices[key]
    if value is not None:
        matrices[key] = value
    capture.save_neus(matrices)
    refused(folder, "cameras_sphere.npz", what)


def test_neus_numbering_and_files(capture) -> None:
    folder = capture.neus()
    matrices = capture.neus_matrices()
    matrices["world_mat_9"] = matrices.pop("world_mat_3")
    capture.save_neus(matrices)
    refused(folder, "'world_mat_3' is missing", "number the cameras")
    (folder / "mask").mkdir()
    Image.fromarray(np.zeros((10, 12), np.uint8)).save(folder / "mask" / "0.png")
    refused(folder, "1 masks for 6 images")
    (folder / "cameras_sphere.npz").write_bytes(b"PK\x03\x04broken")
    refused(folder, "cameras_sphere.npz: not a readable npz file")


def test_broken_point_cloud(capture) -> None:
    folder = capture.transforms(ply_file_path="cloud.ply")
    (folder / "cloud.ply").write_text("ply\nformat ascii 1.0\nelement vertex 5\n")
    refused(folder, "cloud.ply: not a readable PLY file")
    (folder / "cloud.ply").write_text(
        "ply\nformat ascii 1.0\nelement vertex 1\nproperty float x\nend_header\n1\n"
    )
    refused(folder, "cloud.ply: its vertices lack x, y or z")


def test_errors_are_input_errors() -> None:
    """Commands turn input errors into exit code 2."""
    assert issubclass(DataError, InputError)
