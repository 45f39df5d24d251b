"""Recordings of several fixed cameras: a video of each (Neural 3D Video), or time-stamped images.

The cameras stand in `poses_bounds.npy` (a row for each, as in LLFF) or in `cameras.json`: as
transforms.json, with an entry for each camera whose `file_path` names its video or folder. Rows are
paired with the recordings by natural order of their names. Times run from 0 to 1 over the frames
taken. The first camera is for testing, as is usual for these sets, unless `cameras.json` has a
`split`.

Videos are decoded once, at the size asked for, into the cache folder (`video_cache`); images are
read where they lie.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from lumigraph.core.errors import DataError
from lumigraph.datasets.formats.json_cameras import FrameReader, frames_of, read_json, required
from lumigraph.datasets.formats.llff import read_rows, view_of
from lumigraph.datasets.images import image_header, reduced_size
from lumigraph.datasets.options import LoadOptions
from lumigraph.datasets.recordings import (
    camera_folders,
    has_recordings,
    stamped_images,
    videos_in,
)
from lumigraph.datasets.scene_bounds import choose_placement
from lumigraph.datasets.video_cache import Clip, frame_files, probe
from lumigraph.datasets.views import SceneParts, View, stack_poses

POSES, CAMERAS = "poses_bounds.npy", "cameras.json"
RATE_TOLERANCE = 0.01
"""Share by which frame rates may differ; 30 and 29.97 are alike."""
DECODERS = 4
"""Videos decoded at a time; ffmpeg uses several threads for each."""


@dataclass(frozen=True)
class Recording:
    """What one camera took."""

    path: Path
    """Its video or its folder."""
    size: tuple[int, int]
    """Width and height of what was taken."""
    files: tuple[Path, ...]
    """An image for each moment."""
    header: tuple[int, int, bool] | None = None
    """Of the files, where they were made here; see `View.header`."""


def recognises(path: Path) -> bool:
    """True for a folder with a camera file beside two or more videos or camera folders."""
    named = any((path / name).is_file() for name in (POSES, CAMERAS))
    return path.is_dir() and named and has_recordings(path)


def read(path: Path, options: LoadOptions) -> SceneParts:
    """Load videos or stamped images with their cameras."""
    videos = videos_in(path)
    if videos:
        recordings, times = _decoded_videos(videos, options)
    else:
        recordings, times = _stamped(camera_folders(path))
    cameras, depth_range = _cameras(path, recordings)
    views = [
        replace(
            camera,
            name=f"{recording.path.stem}/{moment:06d}",
            image=recording.files[moment],
            header=recording.header,
            time=time,
        )
        for moment, time in enumerate(times)
        for camera, recording in zip(cameras, recordings, strict=True)
    ]
    return SceneParts(
        name=path.resolve().name,
        source=path,
        views=views,
        placement=choose_placement(stack_poses(cameras), depth_range=depth_range),
        decoded=bool(videos),
    )


def _decoded_videos(
    videos: list[Path], options: LoadOptions
) -> tuple[list[Recording], list[float]]:
    clips = [probe(video) for video in videos]
    _require_equal_clips(videos, clips, counts=options.frames is None)
    shortest = min(range(len(clips)), key=lambda index: clips[index].frames)
    chosen = options.chosen(clips[shortest].frames, videos[shortest])
    sizes = [_decoded_size(video, clip, options) for video, clip in zip(videos, clips, strict=True)]
    with ThreadPoolExecutor(DECODERS) as workers:
        tasks = [
            workers.submit(frame_files, video, clip, chosen, size)
            for video, clip, size in zip(videos, clips, sizes, strict=True)
        ]
        try:
            files = [task.result() for task in tasks]
        except BaseException:
            workers.shutdown(wait=False, cancel_futures=True)
            raise
    recordings = [
        Recording(video, (clip.width, clip.height), tuple(found), (*size, False))
        for video, clip, found, size in zip(videos, clips, files, sizes, strict=True)
    ]
    last = max(len(chosen) - 1, 1)
    return recordings, [moment / last for moment in range(len(chosen))]


def _decoded_size(video: Path, clip: Clip, options: LoadOptions) -> tuple[int, int]:
    width, height = reduced_size(clip.width, clip.height, options.image_scale)
    if min(width, height) < 1:
        raise DataError(
            f"{video}: image_scale {options.image_scale} leaves {width}x{height} pixels; use a"
            " larger one"
        )
    return width, height


def _require_equal_clips(videos: list[Path], clips: list[Clip], *, counts: bool) -> None:
    first, name = clips[0], videos[0].name
    for video, clip in zip(videos, clips, strict=True):
        if abs(clip.rate / first.rate - 1) > RATE_TOLERANCE:
            raise DataError(
                f"{video}: {clip.rate:g} frames a second, {name} has {first.rate:g}; the cameras"
                " must have one rate: convert the videos to the same"
            )
        if counts and clip.frames != first.frames:
            least = min(other.frames for other in clips)
            raise DataError(
                f"{video}: {clip.frames} frames, {name} has {first.frames}; the cameras must have"
                f" the same: cut the videos, or take the first ones with frames 0:{least}"
            )


def _stamped(folders: list[Path]) -> tuple[list[Recording], list[float]]:
    cameras = stamped_images(folders)
    recordings = [
        Recording(camera.folder, image_header(camera.files[0])[:2], camera.files)
        for camera in cameras
    ]
    stamps = cameras[0].stamps
    length = max(stamps[-1] - stamps[0], 1e-12)
    return recordings, [(stamp - stamps[0]) / length for stamp in stamps]


def _cameras(
    path: Path, recordings: list[Recording]
) -> tuple[list[View], tuple[float, float] | None]:
    """A view of each recording, without image and time, and the range of depths."""
    if (path / CAMERAS).is_file():
        return _cameras_of_json(path / CAMERAS, recordings), None
    file = path / POSES
    rows = read_rows(file)
    if len(rows) != len(recordings):
        names = [recording.path.name for recording in recordings]
        raise DataError(
            f"{file}: it has {len(rows)} poses, {path} has {len(names)} cameras ({names[0]} to"
            f" {names[-1]}); they are paired by order, so restore the missing video or remove its"
            " row"
        )
    cameras = [
        view_of(row, recording.path, recording.size, f"row {index} of {file}")
        for index, (row, recording) in enumerate(zip(rows, recordings, strict=True))
    ]
    splits = ["test"] + ["train"] * (len(cameras) - 1)
    labelled = [replace(camera, split=split) for camera, split in zip(cameras, splits, strict=True)]
    return labelled, (float(rows[:, 15].min()), float(rows[:, 16].max()))


def _cameras_of_json(file: Path, recordings: list[Recording]) -> list[View]:
    table = read_json(file)
    reader = FrameReader(file, table)
    entries = {}
    for index, frame in enumerate(frames_of(table, file)):
        entries[Path(str(required(frame, "file_path", f"{file}: frames[{index}]"))).name] = (
            index,
            frame,
        )
    known = {name for each in recordings for name in (each.path.name, each.path.stem)}
    for name in entries:
        if name not in known:
            raise DataError(
                f"{file}: {name} is listed, but there is no such video or folder beside it;"
                " restore it or remove its entry"
            )
    labelled = any("split" in frame for _, frame in entries.values())
    views = []
    for place, recording in enumerate(recordings):
        found = entries.get(recording.path.name) or entries.get(recording.path.stem)
        if found is None:
            raise DataError(
                f"{file}: no entry has {recording.path.name} as its file_path; add one for every"
                " camera"
            )
        index, frame = found
        usual = "test" if place == 0 else "train"
        split = str(frame.get("split", "train")) if labelled else usual
        view = reader.read(frame, index, split=split, given=(recording.path, recording.size))
        assert view is not None  # it was given its file
        views.append(view)
    return views
