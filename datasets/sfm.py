"""Cameras of plain photographs or of a video: structure from motion through pycolmap, on the CPU.

`convert` ends in a folder that `load` reads as COLMAP: `images/` with the pictures that found their
place, `sparse/0/` with the model, `convert.json` with what was done. The folder appears whole or
not at all. Photographs are matched each with each, video frames with their neighbours in time.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, TypedDict

from PIL import Image, ImageOps, UnidentifiedImageError

from lumigraph.core.errors import ConfigError, DataError, require
from lumigraph.datasets.images import IMAGE_SUFFIXES
from lumigraph.datasets.video_frames import JPEG_QUALITY, VIDEO_SUFFIXES, extract_frames

MATCHING = ("auto", "exhaustive", "sequential")
CHUNK = 4
"""Pictures whose features are extracted between two progress messages."""
FEWEST_IMAGES = 3
LENS = "OPENCV"
"""Lens model that is fitted: four coefficients, right for cameras and telephones."""

Progress = Callable[[str, int, int], None]
"""Called with a stage, how many pictures are done and how many there are."""


@dataclass(frozen=True)
class ConvertOptions:
    """How photographs or a video become a scene folder."""

    shared_camera: bool = True
    """One set of lens parameters for all pictures of one size; off for mixed cameras or zoom."""
    matching: str = "auto"
    """"exhaustive", "sequential", or "auto": sequential for a video, else exhaustive."""
    frames: int = 100
    """Frames taken from a video."""
    max_side: int = 1600
    """Longer side of the pictures written at most, in pixels."""
    max_features: int = 8192
    """Features looked for in a picture at most."""
    least_share: float = 0.5
    """Share of the pictures that must find their place, in (0, 1]."""
    threads: int = -1
    """Processor threads; -1 takes all."""
    seed: int = 0
    """Seed of the random choices of matching and mapping."""

    def __post_init__(self) -> None:
        if self.matching not in MATCHING:
            raise ConfigError(f"matching {self.matching!r}: expected one of {', '.join(MATCHING)}")
        if self.frames < FEWEST_IMAGES:
            raise ConfigError(f"frames {self.frames}: at least {FEWEST_IMAGES} are needed")
        if self.max_side < 64:
            raise ConfigError(f"max_side {self.max_side}: at least 64 pixels are needed")
        if self.max_features < 100:
            raise ConfigError(f"max_features {self.max_features}: at least 100 are needed")
        if not 0 < self.least_share <= 1:
            raise ConfigError(f"least_share {self.least_share}: expected a share in (0, 1]")
        if self.threads == 0 or self.threads < -1:
            raise ConfigError(f"threads {self.threads}: expected a number, or -1 for all")


class ConvertResult(TypedDict):
    """What came out of a conversion; `convert.json` holds the same and the options."""

    out: str
    images: int
    """Pictures that went in."""
    registered: int
    """Pictures that found their place."""
    points: int
    reprojection_error: float
    """Mean distance in pixels between where points are and where the cameras see them."""
    unplaced: list[str]
    """Names of the pictures without a place."""
    seconds: float


def convert(
    source: str | Path,
    out: str | Path,
    *,
    options: ConvertOptions | None = None,
    on_message: Callable[[str], None] | None = None,
    on_progress: Progress | None = None,
) -> ConvertResult:
    """Find the cameras of photographs or of a video and write a scene folder.

    Args:
        source: a folder of photographs, or a video file.
        out: the folder to write; it must not exist yet, or be empty.
        options: see `ConvertOptions`.
        on_message: called with one line at each stage.
        on_progress: called with (stage, done, total) during "pictures", "features" and "cameras".

    Raises:
        DataError: no pictures, an unreadable one, or too few that find their place.
        MissingExtraError: pycolmap is not installed.
    """
    options = options or ConvertOptions()
    source, out = Path(source).expanduser(), Path(out).expanduser()
    say = on_message or (lambda text: None)
    progress = on_progress or (lambda stage, done, total: None)
    _check_paths(source, out)
    pycolmap = require("pycolmap", extra="sfm")
    began = time.monotonic()
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as name:
        work, scene = Path(name), Path(name) / "scene"
        names, is_video = _gather(source, scene / "images", options, progress)
        say(f"{len(names)} pictures ready")
        with _quiet(pycolmap):
            model = _reconstruct(
                pycolmap,
                work,
                names=names,
                is_video=is_video,
                options=options,
                say=say,
                progress=progress,
            )
        result = _finish(scene, names, model, options, seconds=time.monotonic() - began)
        result["out"] = str(out)
        content = {**result, "source": str(source), "options": asdict(options)}
        content["pycolmap"] = pycolmap.__version__
        (scene / "convert.json").write_text(json.dumps(content, indent=2) + "\n")
        # Replaces an empty folder as well.
        scene.replace(out)
    return result


def _check_paths(source: Path, out: Path) -> None:
    if not source.exists():
        raise DataError(f"{source}: no such folder or video; check the path")
    if source.is_file() and source.suffix.lower() not in VIDEO_SUFFIXES:
        known = " ".join(VIDEO_SUFFIXES)
        raise DataError(f"{source}: not a folder of photographs, nor a video of type {known}")
    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        raise DataError(f"{out}: exists already; choose another --out or remove it first")


def _gather(
    source: Path, images: Path, options: ConvertOptions, progress: Progress
) -> tuple[list[str], bool]:
    """Fill the image folder; names in order, and whether they come from a video."""
    images.mkdir(parents=True)
    if source.is_file():
        written = extract_frames(
            source,
            images,
            count=options.frames,
            max_side=options.max_side,
            on_frame=lambda done: progress("pictures", done, options.frames),
        )
        names, way_out = [path.name for path in written], "take a longer video or more --frames"
    else:
        found = [path for path in source.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES]
        found.sort(key=lambda path: _natural_order(path.name))
        names, way_out = [], "add overlapping photographs all around the subject"
        for done, path in enumerate(found):
            names.append(_copy_picture(path, images, options.max_side))
            progress("pictures", done + 1, len(found))
        if not found:
            known = " ".join(IMAGE_SUFFIXES)
            raise DataError(f"{source}: holds no photographs of type {known}")
    if len(names) < FEWEST_IMAGES:
        raise DataError(
            f"{source}: {len(names)} pictures, at least {FEWEST_IMAGES} are needed; {way_out}"
        )
    return names, source.is_file()


def _natural_order(name: str) -> list[tuple[bool, int, str]]:
    """Sort key under which `2.jpg` comes before `10.jpg`, and both before `a.jpg`."""
    parts = re.findall(r"\d+|\D+", name.lower())
    return [(False, int(part), "") if part.isdecimal() else (True, 0, part) for part in parts]


def _copy_picture(path: Path, folder: Path, max_side: int) -> str:
    """Copy a photograph, upright and no larger than `max_side`; the name it has now."""
    try:
        with Image.open(path) as picture:
            exif = picture.getexif()
            turned = exif.get(0x0112, 1) != 1
            if not turned and max(picture.size) <= max_side:
                picture.load()
                shutil.copyfile(path, folder / path.name)
                return path.name
            upright = ImageOps.exif_transpose(picture)
            upright.thumbnail((max_side, max_side), Image.Resampling.LANCZOS, reducing_gap=2.0)
            # The focal length in the EXIF data is a good start for the lens.
            kept = upright.getexif()
            upright.save(folder / path.name, quality=JPEG_QUALITY, exif=kept.tobytes())
    except (OSError, SyntaxError, ValueError, UnidentifiedImageError) as error:
        raise DataError(
            f"{path}: cannot be read as a picture ({error}); repair it or move it away"
        ) from None
    return path.name


@contextmanager
def _quiet(pycolmap: ModuleType) -> Iterator[None]:
    """Silence COLMAP's log: what it calls errors there comes back as results we report."""
    before = pycolmap.logging.minloglevel
    pycolmap.logging.minloglevel = int(pycolmap.logging.Level.FATAL)
    try:
        yield
    finally:
        pycolmap.logging.minloglevel = before


def _reconstruct(
    pycolmap: ModuleType,
    work: Path,
    *,
    names: Sequence[str],
    is_video: bool,
    options: ConvertOptions,
    say: Callable[[str], None],
    progress: Progress,
) -> Any:
    """The largest model that COLMAP finds."""
    pycolmap.set_random_seed(options.seed)
    database = work / "database.db"
    if options.shared_camera and not _same_sizes(work / "scene" / "images", names):
        say("the pictures differ in size: each gets a camera of its own")
        options = ConvertOptions(**{**asdict(options), "shared_camera": False})
    _extract(pycolmap, work, names=names, options=options, progress=progress)
    sequential = options.matching == "sequential" or (options.matching == "auto" and is_video)
    say(f"matching pictures {'with their neighbours' if sequential else 'each with each'}")
    matching = pycolmap.FeatureMatchingOptions(use_gpu=False, num_threads=options.threads)
    match = pycolmap.match_sequential if sequential else pycolmap.match_exhaustive
    match(database, matching_options=matching, device=pycolmap.Device.cpu)
    say("placing cameras")
    place = partial(_place, pycolmap, work, count=len(names), options=options, progress=progress)
    model = place(relaxed=False)
    if model is None or model.num_reg_images() < options.least_share * len(names):
        say("few pictures found their place; trying again with fewer matches asked for")
        second = place(relaxed=True)
        found = [each for each in (model, second) if each is not None]
        if not found:
            raise DataError(
                f"none of the {len(names)} pictures could be placed; take sharp, overlapping"
                " pictures of a still scene with texture, from different positions"
            )
        model = max(found, key=lambda each: each.num_reg_images())
    return model


def _place(
    pycolmap: ModuleType,
    work: Path,
    *,
    count: int,
    options: ConvertOptions,
    progress: Progress,
    relaxed: bool,
) -> Any | None:
    """The largest model of one run of the mapper; None when it finds none."""
    placed = 2
    progress("cameras", 0, count)

    def count_one() -> None:
        nonlocal placed
        placed += 1
        progress("cameras", min(placed, count), count)

    pipeline = pycolmap.IncrementalPipelineOptions(
        num_threads=options.threads,
        random_seed=options.seed,
        min_model_size=min(10, count // 2 + 1),
    )
    if relaxed:
        # Half of COLMAP's defaults: enough for pictures with little texture.
        pipeline.mapper.init_min_num_inliers = 50
        pipeline.mapper.init_min_tri_angle = 8.0
        pipeline.mapper.abs_pose_min_num_inliers = 15
    output = work / ("relaxed" if relaxed else "models")
    output.mkdir()
    images = work / "scene" / "images"
    models = pycolmap.incremental_mapping(
        work / "database.db", images, output, pipeline, next_image_callback=count_one
    )
    return max(models.values(), key=lambda model: model.num_reg_images(), default=None)


def _same_sizes(folder: Path, names: Sequence[str]) -> bool:
    sizes = set()
    for name in names:
        with Image.open(folder / name) as picture:
            sizes.add(picture.size)
    return len(sizes) == 1


def _extract(
    pycolmap: ModuleType,
    work: Path,
    *,
    names: Sequence[str],
    options: ConvertOptions,
    progress: Progress,
) -> None:
    """Features of all pictures into the database, a few pictures at a time."""
    extraction = pycolmap.FeatureExtractionOptions(
        use_gpu=False, num_threads=options.threads, max_image_size=options.max_side
    )
    extraction.sift.max_num_features = options.max_features
    reader = pycolmap.ImageReaderOptions(camera_model=LENS)
    modes = pycolmap.CameraMode
    for start in range(0, len(names), CHUNK):
        progress("features", start, len(names))
        chunk = list(names[start : start + CHUNK])
        pycolmap.extract_features(
            work / "database.db",
            work / "scene" / "images",
            image_names=chunk,
            camera_mode=modes.SINGLE if options.shared_camera else modes.PER_IMAGE,
            reader_options=reader,
            extraction_options=extraction,
            device=pycolmap.Device.cpu,
        )
        if options.shared_camera and start == 0:
            # Later pictures share the camera that the first ones made.
            with pycolmap.Database.open(work / "database.db") as database:
                reader.existing_camera_id = database.read_all_cameras()[0].camera_id
    progress("features", len(names), len(names))


def _finish(
    scene: Path, names: Sequence[str], model: Any, options: ConvertOptions, *, seconds: float
) -> ConvertResult:
    """Write the model beside the pictures, and remove the pictures that are not in it."""
    placed = {model.image(index).name for index in model.reg_image_ids()}
    unplaced = [name for name in names if name not in placed]
    if len(placed) < max(FEWEST_IMAGES, options.least_share * len(names)):
        raise DataError(
            f"only {len(placed)} of {len(names)} pictures could be placed; add pictures between"
            " those that are far apart and drop blurred ones, or accept fewer (least_share"
            f" {options.least_share:g} now)"
        )
    for name in unplaced:
        (scene / "images" / name).unlink()
    (scene / "sparse" / "0").mkdir(parents=True)
    model.write(scene / "sparse" / "0")
    return {
        "out": "",
        "images": len(names),
        "registered": len(placed),
        "points": model.num_points3D(),
        "reprojection_error": round(model.compute_mean_reprojection_error(), 4),
        "unplaced": unplaced,
        "seconds": round(seconds, 1),
    }
