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
from lumigraph.core.errors import ConfigError
from lumigraph.core.transforms import axis_of
from lumigraph.export.splat_export import cloud_of
from lumigraph.export.splat_files.arrays import DEFAULT_MAX_GAUSSIANS

from .document import LIMIT_MIB, check_size, check_target, encoded, write_page
from .packing import pack_gaussians
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

    def line(self) -> str:
        """For people."""
        what = f"{self.count:,} {'Gaussians' if self.kind == 'gaussians' else 'pictures'}"
        views = f", {self.views} views" if self.views else ""
        left_out = f"; left out: {', '.join(self.left_out)}" if self.left_out else ""
        return f"{self.path}: {what}{views}, {self.bytes / 2**20:.2f} MiB{left_out}"

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "out": str(self.path),
            "kind": self.kind,
            self.kind: self.count,
            "bytes": self.bytes,
            "views": self.views,
            "left_out": list(self.left_out),
        }


def page(
    source: Run | GaussianCloud | str | Path,
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
            by the browser; of other methods, pictures on an orbit are shown.
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
    if isinstance(source, (str, Path, GaussianCloud)):
        return _page_of_cloud(source, target, options=options)
    if getattr(source.config, "method", "nerf") == "gaussians":
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
    scene = orbit_pictures(
        run.model(device),
        run.scene(),
        options=orbit,
        target=target,
        limit_mib=options.page_limit_mib,
        on_forecast=on_note,
        on_picture=on_picture,
    )
    title = options.title or run.scene().name
    write_page(target, "pictures", title=title, scene=scene)
    return PageReport(target, "pictures", len(scene["pictures"]), target.stat().st_size, 0)


def _page_of_cloud(
    source: GaussianCloud | str | Path, target: Path, *, options: PageOptions
) -> PageReport:
    options.refuse(_OF_PICTURES, "Gaussians are drawn, there are no pictures")
    options.refuse(("cameras",), "a file of Gaussians holds no cameras")
    cloud, antialiased = cloud_of(source)
    views = views_of_cloud(cloud) if options.up is None else views_of_cloud(cloud, options.up)
    name = "Gaussians" if isinstance(source, GaussianCloud) else Path(source).name
    moved = cloud.transformed(Similarity(1.0, torch.eye(3), -views.origin))
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
    cloud = model.field.cloud().to("cpu").transformed(back)
    content = {**views.to_dict(), **numbers}
    title = options.title or scene.name
    return _write(cloud, content, target=target, title=title, options=options)


def _write(
    cloud: GaussianCloud,
    scene: dict[str, Any],
    *,
    target: Path,
    title: str,
    options: PageOptions,
) -> PageReport:
    """Pack a cloud and write its page; `scene` is what else the page reads."""
    packed = pack_gaussians(cloud, degree=options.degree, most=options.max_gaussians)
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
