"""What readers hand over: one `View` per image, put together here into a `Scene`.

Readers end in `SceneParts`, which `build_scene` takes, so that sizes, missing files, splits, masks,
alpha, times and the normalization are treated the same way for all formats.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

from lumigraph.core.cameras import CameraModel, Cameras
from lumigraph.core.errors import DataError
from lumigraph.core.scene import MapSource, PointCloud, Scene
from lumigraph.core.transforms import Similarity
from lumigraph.datasets.depth_maps import SUFFIX as PFM_SUFFIX
from lumigraph.datasets.depth_maps import DepthFiles, DepthOutlines
from lumigraph.datasets.images import (
    IMAGE_SUFFIXES,
    ImageFiles,
    MaskFiles,
    image_header,
    reduced_size,
)
from lumigraph.datasets.options import LoadOptions
from lumigraph.datasets.poses import Matrix, camera_numbers, move_points
from lumigraph.datasets.scene_bounds import Placement
from lumigraph.datasets.splits import choose_splits, require_training_images

ASPECT_TOLERANCE = 0.02
"""Images may be smaller than their calibration says, if both sides shrink alike up to this."""

NO_DISTORTION = (0.0,) * 8


@dataclass(frozen=True)
class View:
    """One posed image in the frame of its files."""

    name: str
    """Name that sorts the views for every-n-th splits."""
    image: Path
    camera_to_world: Matrix
    """(4, 4) pose, OpenCV axes."""
    size: tuple[int, int]
    """Width and height in pixels that the intrinsics refer to."""
    focal: tuple[float, float]
    """Focal lengths in x and y, pixels."""
    center: tuple[float, float]
    """Principal point in pixels, pixel centres at +0.5."""
    model: CameraModel = CameraModel.PINHOLE
    distortion: tuple[float, ...] = NO_DISTORTION
    """Eight coefficients in the order of `Cameras.distortion`."""
    time: float | None = None
    mask: Path | None = None
    """White where pixels count, or a depth map, which counts where it knows something."""
    depth: Path | None = None
    """PFM file of depths along the optical axis, in units of the files."""
    header: tuple[int, int, bool] | None = None
    """Width, height and whether there is alpha, where known; else read from the image."""
    split: str | None = None


@dataclass(frozen=True)
class SceneParts:
    """Everything a reader found, ready for `build_scene`."""

    name: str
    source: Path
    """File or folder the poses come from; named in messages and kept with the scene."""
    views: Sequence[View]
    placement: Placement
    points: tuple[Matrix, np.ndarray | None] | None = None
    """Positions (P, 3) in the frame of the files and colours (P, 3) uint8."""
    source_to_files: Similarity | None = None
    """Similarity from the capture's own frame to that of the files, when they moved it."""
    notes: list[str] = field(default_factory=list)
    decoded: bool = False
    """Whether the reader made the images, as `image_scale` and `frames` ask for."""


def build_scene(parts: SceneParts, options: LoadOptions) -> Scene:
    """Check the views against their images and put a `Scene` together."""
    if not parts.views:
        raise DataError(f"{parts.source}: it lists no images; a scene needs at least one")
    notes = [*parts.notes, *parts.placement.notes]
    headers = [view.header or image_header(view.image) for view in parts.views]
    scale = 1.0 if parts.decoded else options.image_scale
    views = [
        fit_to_image(view, header[:2], scale)
        for view, header in zip(parts.views, headers, strict=True)
    ]
    splits = choose_splits(
        _split_names(views),
        [view.split for view in views],
        every=options.split_every,
        source=parts.source,
    )
    has_alpha = any(header[2] for header in headers)
    images = ImageFiles(
        [view.image for view in views],
        sizes=[header[:2] for header in headers],
        names=[view.name for view in views] if parts.decoded else None,
        scale=scale,
        channels=4 if has_alpha else 3,
        budget_bytes=options.image_budget_bytes,
    )
    normalization = parts.placement.normalization
    if parts.source_to_files is not None:
        normalization = normalization.compose(parts.source_to_files)
    scene = Scene(
        name=parts.name,
        source=parts.source,
        cameras=_cameras(views, parts),
        images=images,
        masks=_masks(views, images, options, notes),
        depths=_depths(views, images, parts.placement.normalization, notes),
        points=_point_cloud(parts),
        splits=splits,
        bounds=torch.tensor(parts.placement.bounds, dtype=torch.float32),
        background="white" if has_alpha else None,
        normalization=normalization,
        has_alpha=has_alpha,
        aabb_scale=parts.placement.aabb_scale,
        near=parts.placement.near,
        notes=notes,
    )
    return scene if parts.decoded or options.frames is None else chosen_moments(scene, options)


def chosen_moments(scene: Scene, options: LoadOptions) -> Scene:
    """The scene with the moments that `options.frames` asks for, their times from 0 to 1."""
    moments, times = scene.moments, scene.cameras.times
    if moments is None or times is None:
        raise DataError(f"{scene.source}: has no times, so that frames cannot choose among them")
    chosen = moments[list(options.chosen(len(moments), scene.source))]
    part = scene.select(torch.isin(times, chosen).nonzero()[:, 0])
    assert part.cameras.times is not None
    length = max(float(chosen[-1] - chosen[0]), 1e-9)
    moved = (part.cameras.times - chosen[0]) / length
    require_training_images(
        part.splits, source=scene.source, way_out="choose other frames, or another split_every"
    )
    return replace(part, cameras=replace(part.cameras, times=moved.clamp(0, 1)))


def fit_to_image(view: View, found: tuple[int, int], scale: float = 1.0) -> View:
    """Scale the intrinsics of a view to the image file found, then by `image_scale`.

    Raises a `DataError` when the file has another shape than the calibration says.
    """
    if min(view.size) < 1:
        raise DataError(
            f"{view.image}: the camera says {view.size[0]}x{view.size[1]} pixels; width and height"
            " must be at least 1"
        )
    stretch = (found[0] / view.size[0]) / (found[1] / view.size[1])
    if abs(stretch - 1.0) > ASPECT_TOLERANCE:
        raise DataError(
            f"{view.image}: the image is {found[0]}x{found[1]} pixels, its camera is for"
            f" {view.size[0]}x{view.size[1]}; use the images the camera was calibrated with"
        )
    width, height = reduced_size(*found, scale)
    factor_x, factor_y = width / view.size[0], height / view.size[1]
    return replace(
        view,
        size=(width, height),
        focal=(view.focal[0] * factor_x, view.focal[1] * factor_y),
        center=(view.center[0] * factor_x, view.center[1] * factor_y),
    )


def keep_existing(
    views: Iterable[tuple[str, View | None]], *, source: Path, notes: list[str]
) -> list[View]:
    """Views whose image exists; the others (None) are counted in one note.

    Args:
        views: Pairs of the listed file name and the view, None where the file is missing.
        source: File that lists them.
        notes: Receives the summary line.
    """
    pairs = list(views)
    missing = [listed for listed, view in pairs if view is None]
    found = [view for _, view in pairs if view is not None]
    if missing and not found:
        raise DataError(
            f"{source}: none of its {len(pairs)} images exists (first: {missing[0]}); put the"
            " images where the file says"
        )
    if missing:
        notes.append(
            f"{len(missing)} of {len(pairs)} images listed in {source.name} are missing and were"
            f" skipped (first: {missing[0]})"
        )
    return found


def find_image(folder: Path, listed: str) -> Path | None:
    """The file that a scene file means: as written, or with an image suffix added."""
    path = folder / listed
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return path if path.is_file() else None
    for suffix in ("", *IMAGE_SUFFIXES, *(suffix.upper() for suffix in IMAGE_SUFFIXES)):
        candidate = path.with_name(path.name + suffix)
        if candidate.is_file():
            return candidate
    return None


def stack_poses(views: Sequence[View]) -> Matrix:
    """Camera-to-world matrices (C, 4, 4) of views."""
    return np.stack([view.camera_to_world for view in views])


def _cameras(views: Sequence[View], parts: SceneParts) -> Cameras:
    files_to_scene = parts.placement.normalization
    poses = files_to_scene.apply_poses(torch.from_numpy(stack_poses(views)))
    intrinsics = [[*view.focal, *view.center] for view in views]
    return Cameras(
        camera_to_world=poses.float(),
        intrinsics=torch.tensor(intrinsics, dtype=torch.float32),
        sizes=torch.tensor([view.size for view in views], dtype=torch.int64),
        models=torch.tensor([int(view.model) for view in views], dtype=torch.int64),
        distortion=torch.tensor([view.distortion for view in views], dtype=torch.float32),
        times=_times(views, parts.source),
    )


def _split_names(views: Sequence[View]) -> list[str]:
    """One name for each view; pictures that a fixed camera took at several times share one."""
    names = [view.name for view in views]
    if all(view.time is None for view in views):
        return names
    first: dict[int, str] = {}
    cameras = camera_numbers(stack_poses(views))
    for camera, name in zip(cameras, names, strict=True):
        first[camera] = min(name, first.get(camera, name))
    return [first[camera] for camera in cameras]


def _times(views: Sequence[View], source: Path) -> torch.Tensor | None:
    times = [view.time for view in views]
    if all(time is None for time in times):
        return None
    for view, time in zip(views, times, strict=True):
        if time is None or not 0.0 <= time <= 1.0:
            raise DataError(
                f"{source}: time of {view.name} is {time}; every image needs one within 0 and 1,"
                " or none has one"
            )
    _require_one_picture_a_time(views, source)
    return torch.tensor(times, dtype=torch.float32)


def _require_one_picture_a_time(views: Sequence[View], source: Path) -> None:
    """Refuse two pictures of one camera at one time in one split."""
    taken: dict[tuple[int, float | None, str | None], View] = {}
    for camera, view in zip(camera_numbers(stack_poses(views)), views, strict=True):
        other = taken.setdefault((camera, view.time, view.split), view)
        if other is not view:
            raise DataError(
                f"{source}: {other.name} and {view.name} are of one camera at one time,"
                f" {view.time}; correct the time or remove one of them"
            )


def _depths(
    views: Sequence[View], images: ImageFiles, normalization: Similarity, notes: list[str]
) -> DepthFiles | None:
    paths = [view.depth for view in views if view.depth is not None]
    if paths and len(paths) < len(views):
        notes.append(f"only {len(paths)} of {len(views)} images have a depth map; none is used")
    if len(paths) < len(views):
        return None
    sizes = [images.size(index) for index in range(len(images))]
    return DepthFiles(paths, sizes, scale=float(normalization.scale))


def _masks(
    views: Sequence[View], images: ImageFiles, options: LoadOptions, notes: list[str]
) -> MapSource | None:
    paths = [view.mask for view in views if view.mask is not None]
    if not paths:
        return None
    if len(paths) < len(views):
        notes.append(f"only {len(paths)} of {len(views)} images have a mask; masks are not used")
        return None
    if paths[0].suffix == PFM_SUFFIX:
        sizes = [images.size(index) for index in range(len(images))]
        return DepthOutlines(DepthFiles(paths, sizes, scale=1.0))
    masks = ImageFiles(
        paths,
        scale=options.image_scale,
        channels=1,
        budget_bytes=options.image_budget_bytes // 4,
    )
    for index in range(len(masks)):
        if masks.size(index) != images.size(index):
            raise DataError(
                f"{masks.path(index)}: the mask has {masks.size(index)} pixels, its image"
                f" {images.size(index)}; they must agree"
            )
    return MaskFiles(masks)


def _point_cloud(parts: SceneParts) -> PointCloud | None:
    if parts.points is None:
        return None
    positions, colors = parts.points
    moved = move_points(parts.placement.normalization, positions)
    return PointCloud(
        positions=torch.tensor(moved, dtype=torch.float32),
        colors=None if colors is None else torch.from_numpy(np.array(colors, dtype=np.uint8)),
    )
