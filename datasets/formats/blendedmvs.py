"""BlendedMVS folders, and others of MVSNet's layout: a camera file for each image.

`cams/N_cam.txt` holds the word "extrinsic" and a 4x4 matrix (world to camera, OpenCV axes), the
word "intrinsic" and a 3x3 matrix (pixels, pixel centres at whole numbers), then the least depth,
the step and, mostly, the number of steps and the largest depth. Images stand in `blended_images`
(or `images`), depth maps in `rendered_depth_maps/N.pfm`. Where masked copies `N_masked.jpg` are
there as well, the masks are where the depth map knows something: the copies are black elsewhere,
but so are dark things. `cams/pair.txt` (which views go well together) is not needed.
"""

from pathlib import Path

import numpy as np

from lumigraph.core.errors import DataError
from lumigraph.datasets.depth_maps import SUFFIX, read_pfm
from lumigraph.datasets.formats.image_folders import choose_image_folder, listed_images
from lumigraph.datasets.images import image_header
from lumigraph.datasets.options import LoadOptions
from lumigraph.datasets.poses import Matrix, checked_matrix, checked_pose
from lumigraph.datasets.scene_bounds import choose_placement
from lumigraph.datasets.views import SceneParts, View, keep_existing, stack_poses

IMAGES, CAMERAS, DEPTHS = "blended_images", "cams", "rendered_depth_maps"
CAMERA_ENDING, MASKED_ENDING = "_cam.txt", "_masked"
PIXEL_SHIFT = 0.5
"""From pixel centres at whole numbers to centres at +0.5."""
SAMPLED_MAPS, POINTS_OF_A_MAP = 40, 500
"""Depth maps that give points, and how many each."""


def recognises(path: Path) -> bool:
    """True for a folder with cams/N_cam.txt."""
    folder = path / CAMERAS
    return folder.is_dir() and any(folder.glob(f"*{CAMERA_ENDING}"))


def read(path: Path, options: LoadOptions) -> SceneParts:
    """Load a BlendedMVS scene."""
    wish = options.image_folder or (IMAGES if (path / IMAGES).is_dir() else None)
    folder = choose_image_folder(path, wish)
    images = {image.stem: image for image in listed_images(folder)}
    masked = {stem for stem in images if stem.endswith(MASKED_ENDING)}
    # A set may hold the masked copies alone.
    plain = {stem: image for stem, image in images.items() if stem not in masked} or {
        stem.removesuffix(MASKED_ENDING): images[stem] for stem in masked
    }
    files = sorted((path / CAMERAS).glob(f"*{CAMERA_ENDING}"))
    notes: list[str] = []
    cameras = [_read_camera(file) for file in files]
    found = [
        (f"{stem}.jpg", _view(path, stem, plain.get(stem), camera, masked=bool(masked)))
        for stem, camera in zip(_stems(files), cameras, strict=True)
    ]
    views = keep_existing(found, source=path / CAMERAS, notes=notes)
    if masked and all(view.depth is None for view in views):
        notes.append(f"the masked copies give no masks without {DEPTHS}: put the depth maps there")
    points = _points(views)
    ranges = np.array([camera[2] for camera in cameras])
    return SceneParts(
        name=path.resolve().name,
        source=path,
        views=views,
        placement=choose_placement(
            stack_poses(views),
            points=points,
            depth_range=(float(ranges[:, 0].min()), float(ranges[:, 1].max())),
        ),
        points=None if points is None else (points, None),
        notes=notes,
    )


def _stems(files: list[Path]) -> list[str]:
    return [file.name.removesuffix(CAMERA_ENDING) for file in files]


def _read_camera(file: Path) -> tuple[Matrix, Matrix, tuple[float, float]]:
    """Pose (4, 4) camera to world, intrinsics (3, 3), and the depth range."""
    try:
        words = file.read_text(encoding="utf-8").split()
        matrix = [float(word) for word in words[1:17]]
        lens = [float(word) for word in words[18:27]]
        depths = [float(word) for word in words[27:31]]
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise DataError(f"{file}: not a camera file ({error}); write it again") from None
    named = words[0:1] == ["extrinsic"] and words[17:18] == ["intrinsic"]
    if not named or len(lens) < 9 or len(depths) < 2:
        raise DataError(
            f"{file}: expected 'extrinsic', 4x4 numbers, 'intrinsic', 3x3 numbers, then the least"
            " depth and the step; write it again"
        )
    world_to_camera = checked_matrix(np.reshape(matrix, (4, 4)), ((4, 4),), f"{file}: extrinsic")
    if abs(np.linalg.det(world_to_camera)) < 1e-9:
        raise DataError(f"{file}: extrinsic: the matrix is singular; expected [R|t]")
    pose = checked_pose(np.linalg.inv(world_to_camera), f"{file}: extrinsic")
    intrinsics = checked_matrix(np.reshape(lens, (3, 3)), ((3, 3),), f"{file}: intrinsic")
    if min(intrinsics[0, 0], intrinsics[1, 1]) <= 0:
        raise DataError(f"{file}: intrinsic: the focal lengths must be above zero; correct them")
    return pose, intrinsics, _depth_range(depths, file)


def _depth_range(depths: list[float], file: Path) -> tuple[float, float]:
    """Least and largest depth; MVSNet's usual 192 steps where the file gives no number."""
    near, step = depths[:2]
    steps = depths[2] if len(depths) > 2 else 192.0
    far = depths[3] if len(depths) > 3 else near + step * (steps - 1)
    if not 0 < near < far < np.inf:
        raise DataError(f"{file}: depths from {near:g} to {far:g}; expected 0 < least < largest")
    return near, far


def _view(
    path: Path,
    stem: str,
    image: Path | None,
    camera: tuple[Matrix, Matrix, tuple[float, float]],
    *,
    masked: bool,
) -> View | None:
    if image is None:
        return None
    pose, lens, _ = camera
    file = path / DEPTHS / f"{stem}{SUFFIX}"
    depth = file if file.is_file() else None
    return View(
        name=image.name,
        image=image,
        camera_to_world=pose,
        size=image_header(image)[:2],
        focal=(float(lens[0, 0]), float(lens[1, 1])),
        center=(float(lens[0, 2]) + PIXEL_SHIFT, float(lens[1, 2]) + PIXEL_SHIFT),
        mask=depth if masked else None,
        depth=depth,
    )


def _points(views: list[View]) -> Matrix | None:
    """Points (P, 3) of the world in some of the depth maps, to place the scene by."""
    known = [view for view in views if view.depth is not None]
    chosen = known[:: max(1, -(-len(known) // SAMPLED_MAPS))]
    found = [_points_of(view) for view in chosen]
    points = np.concatenate(found) if found else np.zeros((0, 3))
    return points if len(points) else None


def _points_of(view: View) -> Matrix:
    assert view.depth is not None
    depth = read_pfm(view.depth).astype(np.float64)
    rows, columns = np.nonzero(depth)
    every = max(1, len(rows) // POINTS_OF_A_MAP)
    rows, columns = rows[::every], columns[::every]
    along = depth[rows, columns]
    # The map may be smaller than the image that the intrinsics are for.
    x = (columns + 0.5) * view.size[0] / depth.shape[1]
    y = (rows + 0.5) * view.size[1] / depth.shape[0]
    local = np.stack(
        [
            (x - view.center[0]) / view.focal[0] * along,
            (y - view.center[1]) / view.focal[1] * along,
            along,
        ],
        axis=1,
    )
    return local @ view.camera_to_world[:3, :3].T + view.camera_to_world[:3, 3]
