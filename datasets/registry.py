"""Which reader reads what: the table of formats and `load`.

The first format of the table that recognises a folder reads it; a folder that holds several can be
read as another one by `format`, or by naming the file itself (`scene/cameras_sphere.npz`).
"""

from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Protocol, cast

from lumigraph.core.errors import DataError
from lumigraph.core.scene import Scene
from lumigraph.datasets.options import DEFAULT_IMAGE_BUDGET_BYTES, LoadOptions
from lumigraph.datasets.poses import camera_numbers
from lumigraph.datasets.splits import choose_splits
from lumigraph.datasets.views import SceneParts, build_scene, chosen_moments

BUILTIN_PREFIX = "builtin:"

FORMATS = {
    "blender": "transforms_train.json (NeRF synthetic, D-NeRF)",
    "transforms": "transforms.json (instant-ngp, nerfstudio)",
    "colmap": "sparse/0 (COLMAP, binary or text)",
    "recordings": "poses_bounds.npy or cameras.json beside cam00.mp4, cam01.mp4, ... (N3V)",
    "llff": "poses_bounds.npy (LLFF)",
    "neus": "cameras_sphere.npz (NeuS, IDR)",
    "blendedmvs": "cams/00000000_cam.txt (BlendedMVS, MVSNet)",
    "frames": "frame_000, frame_001, ... (a folder of any format for each moment)",
}
"""Name of each format, which is its module below `formats`, and what a folder of it holds."""


def load(
    path: str | Path,
    *,
    format: str | None = None,
    split_every: int | None = None,
    image_scale: float = 1.0,
    image_budget_bytes: int = DEFAULT_IMAGE_BUDGET_BYTES,
    image_folder: str | None = None,
    frames: str | None = None,
) -> Scene:
    """Read a scene of any known format.

    Args:
        path: A folder, one of the files that mark a format, or a built-in scene as in
            "builtin:object".
        format: Name of a format in `FORMATS`; None recognises it.
        split_every: Every n-th image by sorted name is for testing, 0 none; None follows the
            folder's own split, else takes every 8th.
        image_scale: Factor on the sides of all images, in (0, 1].
        image_budget_bytes: Decoded images kept in memory at most, in bytes.
        image_folder: Name of the image folder (COLMAP, LLFF, NeuS) where there are several.
        frames: Moments of a moving scene to take, START:STOP:STEP; None takes all.

    Raises:
        DataError: nothing there, no known format, or a broken file; one line that names it.
    """
    options = LoadOptions(split_every, image_scale, image_budget_bytes, image_folder, frames)
    if str(path).startswith(BUILTIN_PREFIX):
        return _load_builtin(str(path), options)
    path = Path(path).expanduser()
    if not path.exists():
        raise DataError(
            f"{path}: no such folder; check the path, or use builtin:object for the built-in scene"
        )
    name, notes = (format, []) if format is not None else recognise(path)
    if name not in FORMATS:
        raise DataError(f"format '{name}' is not known; use one of {', '.join(FORMATS)}")
    if format is not None and not reader_of(name).recognises(path):
        raise DataError(f"{path}: is not of format '{name}'; it would hold {FORMATS[name]}")
    parts = reader_of(name).read(path, options)
    return build_scene(replace(parts, notes=[*parts.notes, *notes]), options)


def recognise(path: Path) -> tuple[str, list[str]]:
    """Name of the format of a folder or file, and a note when others fit as well."""
    fitting = [name for name in FORMATS if reader_of(name).recognises(path)]
    if not fitting:
        known = "; ".join(FORMATS.values())
        raise DataError(
            f"{path}: not a known scene format; expected a folder with one of: {known}; for plain"
            " photographs or a video run 'lumigraph convert' first"
        )
    if len(fitting) == 1:
        return fitting[0], []
    others = ", ".join(fitting[1:])
    return fitting[0], [f"read as {fitting[0]}; format={others} would fit as well"]


class Reader(Protocol):
    """What every module below `formats` offers."""

    def recognises(self, path: Path) -> bool:
        """True when `path` is of this format; looks at names only."""
        ...

    def read(self, path: Path, options: LoadOptions, /) -> SceneParts:
        """Posed images and what else the files say; `build_scene` does the rest."""
        ...


def reader_of(name: str) -> Reader:
    """The module that reads a format, imported on first use."""
    return cast(Reader, import_module(f"lumigraph.datasets.formats.{name}"))


def _load_builtin(name: str, options: LoadOptions) -> Scene:
    from lumigraph.datasets import builtin

    scene = builtin.load(name, options.image_scale)
    if options.frames is not None:
        scene = chosen_moments(scene, options)
    if options.split_every is None:
        return scene
    cameras = camera_numbers(scene.cameras.camera_to_world.numpy())
    names = [f"{camera:06d}" for camera in cameras]
    splits = choose_splits(names, [None] * len(names), every=options.split_every, source=name)
    return replace(scene, splits=splits)
