"""`lumigraph.export.page`: a run or a file of Gaussians as one HTML file."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from lumigraph.core import GaussianCloud, Similarity
from lumigraph.core.axes import AXIS_NAMES, AxisName
from lumigraph.core.camera_path import check_time_span
from lumigraph.core.errors import ConfigError
from lumigraph.core.transforms import axis_of
from lumigraph.export.path_time import check_moving, check_one_time, is_moving
from lumigraph.export.render_source import SplatSource
from lumigraph.export.sequence_export import sequence_times
from lumigraph.export.splat_export import cloud_of, has_gaussians, moving_splats
from lumigraph.export.splat_files.arrays import DEFAULT_MAX_GAUSSIANS
from lumigraph.export.splat_files.moving_file import is_moving_file
from lumigraph.export.splat_files.moving_splats import MovingSplats
from lumigraph.fields import Gaussians4D

from .document import LIMIT_MIB, check_size, check_target, encoded, write_page
from .packing import pack_gaussians, pack_moving_gaussians
from .pictures import FORMATS, OrbitOptions, orbit_pictures
from .views import views_of_cloud, views_of_scene

if TYPE_CHECKING:
    from lumigraph.training import Run

NEAR = 0.01
"""Nearest depth of files of Gaussians, as in the rasteriser."""
_OVERHEAD = 64 << 10  # bytes of scripts and numbers beside the data
_NAMED_COLORS = {"black": "#000000", "white": "#ffffff"}
_OF_GAUSSIANS = ("degree", "max_gaussians", "background", "up", "cameras")
_OF_PICTURES = (
    "time_steps",
    "azimuths",
    "elevations",
    "picture_size",
    "picture_quality",
    "picture_format",
)
_RANGES = {
    "degree": (0, 3),
    "max_gaussians": (1, 2**31),
    "cameras": (1, 1000),
    "time_steps": (2, 1000),
    "azimuths": (1, 720),
    "elevations": (1, 90),
    "picture_size": (16, 4096),
    "picture_quality": (1, 100),
}


@dataclass(frozen=True)
class PageOptions:
    """What a page holds. Checked on construction."""

    title: str | None = None
    """Shown in the page; None takes the name of the scene or the file."""
    degree: int = 0
    """Gaussians: highest harmonics kept, 0 to 3. More colors by direction, a larger page."""
    max_gaussians: int = DEFAULT_MAX_GAUSSIANS
    """Gaussians: keep so many, those with the largest product of opacity and area."""
    background: str | None = None
    """Gaussians: black, white or #rrggbb behind them; None takes that of the run, else black."""
    up: AxisName | None = None
    """Axis of the capture's frame that points up; None takes that of the cameras, for files -y."""
    cameras: int = 24
    """Gaussians: cameras of the capture that one can jump to, spread over it."""
    time: float | None = None
    """One time in [0, 1] of what moves; None shows all times, with a slider."""
    time_steps: int = 8
    """Other methods, of what moves: times of pictures, from the first moment to the last."""
    azimuths: int = 36
    """Other methods: pictures around."""
    elevations: int = 3
    """Other methods: rings of pictures, one above the other."""
    picture_size: int = 480
    """Other methods: pixels along the longer side."""
    picture_quality: int = 80
    """Other methods: 1 to 100."""
    picture_format: str = "webp"
    """Other methods: webp or jpeg."""
    page_limit_mib: float = LIMIT_MIB
    """Refuse pages that would be larger."""
    overwrite: bool = False
    """Replace a file that is there."""

    def __post_init__(self) -> None:
        for name, (least, most) in _RANGES.items():
            value = getattr(self, name)
            if not least <= value <= most:
                raise ConfigError(f"{name} {value}: expected {least} to {most}")
        if self.picture_format not in FORMATS:
            raise ConfigError(f"picture_format {self.picture_format!r}: expected webp or jpeg")
        if self.up is not None and self.up not in AXIS_NAMES:
            raise ConfigError(f"up {self.up!r}: expected one of {', '.join(AXIS_NAMES)}")
        if not (math.isfinite(self.page_limit_mib) and self.page_limit_mib > 0):
            raise ConfigError(f"page_limit_mib {self.page_limit_mib}: expected more than 0")
        if self.background is not None:
            color_of(self.background)
        if self.time is not None:
            check_time_span((self.time, self.time))

    def refuse(self, names: tuple[str, ...], reason: str) -> None:
        """Options that would have no effect are a mistake.

        Raises:
            ConfigError: one of them is not as by default.
        """
        for name in names:
            if getattr(self, name) != getattr(PageOptions, name):
                raise ConfigError(f"{name} {getattr(self, name)}: has no effect: {reason}")


@dataclass(frozen=True)
class PageReport:
    """A page that was written."""

    path: Path
    kind: str
    """"gaussians" or "pictures"."""
    count: int
    """Gaussians, or pictures."""
    bytes: int
    """Size of the file."""
    views: int
    """Cameras that one can jump to; 0 for pictures."""
    left_out: tuple[str, ...] = ()
    """What is not in the page, in words."""
    moves: bool = False
    """Whether it has a time slider."""

    def line(self) -> str:
        """For people."""
        what = f"{self.count:,} {'Gaussians' if self.kind == 'gaussians' else 'pictures'}"
        views = f", {self.views} views" if self.views else ""
        left_out = f"; left out: {', '.join(self.left_out)}" if self.left_out else ""
        moves = ", all times" if self.moves else ""
        return f"{self.path}: {what}{views}{moves}, {self.bytes / 2**20:.2f} MiB{left_out}"

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "out": str(self.path),
            "kind": self.kind,
            "moves": self.moves,
            self.kind: self.count,
            "bytes": self.bytes,
            "views": self.views,
            "left_out": list(self.left_out),
        }


def page(
    source: Run | GaussianCloud | MovingSplats | str | Path,
    *,
    out: str | Path,
    options: PageOptions | None = None,
    device: str | None = None,
    on_note: Callable[[str], None] | None = None,
    on_picture: Callable[[int, int], None] | None = None,
) -> PageReport:
    """Write a page that needs nothing else: `lg.export.page(run, out="courtyard.html")`.

    Args:
        source: a `training.Run`, its folder, a file of Gaussians or a cloud. Gaussians are drawn
            by the browser, moving ones at the time of a slider; of other methods, pictures on an
            orbit are shown, of moving ones at some times.
        out: a .html file.
        options: what the page holds.
        device: where pictures are rendered; None takes that of the run's settings.
        on_note: told in a line how large a page of pictures will be, before they are rendered.
        on_picture: told after each picture how many are done, and of how many.

    Raises:
        InputError: an unusable target, a page beyond the limit, options that do not fit.
        DataError: no such run or file, or nothing to be seen.
    """
    options = options or PageOptions()
    target = Path(out)
    check_target(target, overwrite=options.overwrite)
    if isinstance(source, (str, Path)) and Path(source).is_dir():
        from lumigraph.training import Run

        source = Run.open(source)
    if isinstance(source, (str, Path, GaussianCloud, MovingSplats)):
        return _page_of_cloud(source, target, options=options)
    if has_gaussians(source):
        return _page_of_gaussians(source, target, options=options)
    return _page_of_pictures(
        source, target, options=options, device=device, on_note=on_note, on_picture=on_picture
    )


def _page_of_pictures(
    run: Any,
    target: Path,
    *,
    options: PageOptions,
    device: str | None,
    on_note: Callable[[str], None] | None,
    on_picture: Callable[[int, int], None] | None,
) -> PageReport:
    options.refuse(_OF_GAUSSIANS, f"method {run.config.method!r} has no Gaussians")
    orbit = OrbitOptions(
        azimuths=options.azimuths,
        elevations=options.elevations,
        size=options.picture_size,
        quality=options.picture_quality,
        format=options.picture_format,
    )
    model = run.model(device)
    times = _picture_times(model, options, run.path if hasattr(run, "path") else "run")
    scene = orbit_pictures(
        model,
        run.scene(),
        times=times,
        options=orbit,
        target=target,
        limit_mib=options.page_limit_mib,
        on_forecast=on_note,
        on_picture=on_picture,
    )
    title = options.title or run.scene().name
    write_page(target, "pictures", title=title, scene=scene)
    size, count = target.stat().st_size, len(scene["pictures"])
    return PageReport(target, "pictures", count, size, 0, moves="times" in scene)


def _picture_times(model: Any, options: PageOptions, name: object) -> list[float] | None:
    """Of the pictures; None where nothing moves."""
    moments = getattr(model, "moments", None)
    if options.time is not None:
        options.refuse(("time_steps",), "one time was asked for")
        check_moving(is_moving(model), name)
        return [options.time]
    if moments is None:
        options.refuse(("time_steps",), "nothing moves")
        return None
    return sequence_times(options.time_steps, moments)


def _page_of_cloud(
    source: GaussianCloud | MovingSplats | str | Path, target: Path, *, options: PageOptions
) -> PageReport:
    options.refuse(_OF_PICTURES, "Gaussians are drawn, there are no pictures")
    options.refuse(("cameras",), "a file of Gaussians holds no cameras")
    moves = isinstance(source, MovingSplats) or (
        not isinstance(source, GaussianCloud) and is_moving_file(source)
    )
    whole: MovingSplats | GaussianCloud
    if moves and options.time is None:
        whole = moving_splats(source)  # type: ignore[arg-type]
        cloud, antialiased = SplatSource.of_moving("page", whole).cloud, whole.antialiased
    else:
        cloud, antialiased = cloud_of(source, time=options.time)  # type: ignore[arg-type]
        whole = cloud
    views = views_of_cloud(cloud) if options.up is None else views_of_cloud(cloud, options.up)
    name = Path(source).name if isinstance(source, (str, Path)) else "Gaussians"
    moved = whole.transformed(Similarity(1.0, torch.eye(3), -views.origin))
    background = {"color": color_of(options.background or "black")}
    numbers = {"antialiased": antialiased, "near": NEAR, "background": background}
    scene = {**views.to_dict(), **numbers}
    return _write(moved, scene, target=target, title=options.title or name, options=options)


def _page_of_gaussians(run: Any, target: Path, *, options: PageOptions) -> PageReport:
    options.refuse(_OF_PICTURES, "Gaussians are drawn, there are no pictures")
    scene, model = run.scene(), run.model("cpu")
    views = views_of_scene(scene, options.cameras)
    if options.up is not None:
        views = views.with_up(axis_of(options.up))
    back = scene.normalization.inverse()
    back = Similarity(back.scale, back.rotation, back.translation - views.origin)
    renderer = model.renderer
    numbers = {
        "antialiased": bool(renderer.antialiased),
        "near": float(renderer.near or NEAR) * back.scale,
        "background": _background(renderer.background, back, asked=options.background),
    }
    found = _gaussians_of(run, model, options.time)
    cloud = found.transformed(back)
    content = {**views.to_dict(), **numbers}
    title = options.title or scene.name
    return _write(cloud, content, target=target, title=title, options=options)


def _gaussians_of(run: Any, model: Any, time: float | None) -> GaussianCloud | MovingSplats:
    """In the frame of the scene."""
    if time is None and isinstance(model.field, Gaussians4D):
        return MovingSplats.of_field(model.field)
    check_one_time(is_moving(model), time, getattr(run, "path", "run"))
    if time is None:
        cloud: GaussianCloud = model.field.cloud().to("cpu")
        return cloud
    with torch.no_grad():
        return GaussianCloud(*model.field.gaussians_at(time)).to("cpu")


def _write(
    cloud: GaussianCloud | MovingSplats,
    scene: dict[str, Any],
    *,
    target: Path,
    title: str,
    options: PageOptions,
) -> PageReport:
    """Pack a cloud and write its page; `scene` is what else the page reads."""
    limits = {"degree": options.degree, "most": options.max_gaussians}
    if isinstance(cloud, MovingSplats):
        packed = pack_moving_gaussians(cloud, **limits)
        scene = {**scene, "times": cloud.moments.tolist()}
    else:
        packed = pack_gaussians(cloud, **limits)
    size = len(packed.data) * 4 / 3 + _OVERHEAD
    remedy = "lower --max-gaussians" + (" or --degree" if packed.layout.degree else "")
    check_size(target, size, limit_mib=options.page_limit_mib, remedy=remedy)
    content = {**scene, "layout": packed.layout.to_dict()}
    data = encoded(packed.data)
    write_page(target, "gaussians", title=title, scene=content, data=data)
    return PageReport(
        target,
        "gaussians",
        packed.layout.count,
        target.stat().st_size,
        len(scene["views"]),
        packed.left_out,
        moves="times" in scene,
    )


def color_of(name: str) -> list[float]:
    """Red, green and blue in [0, 1] of black, white or #rrggbb.

    Raises:
        ConfigError: any other text.
    """
    text = _NAMED_COLORS.get(name.lower(), name)
    if not re.fullmatch("#[0-9a-fA-F]{6}", text):
        raise ConfigError(f"background {name!r}: expected black, white or #rrggbb")
    return [int(text[i : i + 2], 16) / 255 for i in (1, 3, 5)]


def _background(found: Any, back: Similarity, *, asked: str | None) -> dict[str, Any]:
    """A color, or a sky as a picture over longitude and latitude of the capture's frame."""
    if asked is not None:
        return {"color": color_of(asked)}
    if isinstance(found, torch.Tensor):
        return {"color": found.cpu().tolist()}
    columns, rows = 128, 64
    longitude = ((torch.arange(columns) + 0.5) / columns * 2 - 1) * math.pi
    latitude = (torch.arange(rows) + 0.5) / rows * math.pi  # from the axis z
    level = latitude.sin()[:, None]
    directions = torch.stack(
        [
            level * longitude.cos(),
            level * longitude.sin(),
            latitude.cos()[:, None].expand(rows, columns),
        ],
        dim=-1,
    )
    colors = found(back.inverse().apply_directions(directions).reshape(-1, 3))
    data = (colors.clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy().tobytes()
    return {"color": [0.0, 0.0, 0.0], "sky": encoded(data), "columns": columns, "rows": rows}
