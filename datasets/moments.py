"""How the pictures of a moving scene spread over times and cameras, and which are missing.

A camera that stands still is told by its pose. Where cameras see most of the moments, as those of
a rig do, each camera is expected to see all of them.
"""

from __future__ import annotations

from dataclasses import dataclass

from lumigraph.core.scene import Scene
from lumigraph.datasets.poses import camera_numbers

LINES = 5
"""Cameras with missing moments that are told one by one."""


@dataclass(frozen=True)
class Moments:
    """How the pictures of a moving scene spread over times and cameras."""

    count: int
    first: float
    last: float
    """Least and most time in [0, 1]."""
    images_least: int
    images_most: int
    """Pictures of the moment that has fewest, and of the one that has most."""
    cameras: int
    """Different poses: a camera that stands still counts once."""
    missing: list[str]
    """One line for each camera that lacks moments, where most cameras see most moments."""

    def line(self) -> str:
        """The numbers for a terminal."""
        least, most = self.images_least, self.images_most
        each = f"{least}" if least == most else f"{least} to {most}"
        places = f"{self.cameras} camera" + "s" * (self.cameras > 1)
        between = f"from time {self.first:.4g} to {self.last:.4g}"
        return f"{self.count} {between}, {each} images each, {places}"

    def problems(self) -> list[str]:
        """What is missing, at most `LINES` cameras and the number of the others."""
        more = len(self.missing) - LINES
        return self.missing[:LINES] + [f"{more} more cameras lack moments"] * (more > 0)


def moments_of(scene: Scene) -> Moments | None:
    """Count times and cameras of a scene; None where nothing moves."""
    cameras = scene.cameras.to("cpu")
    if cameras.times is None:
        return None
    moments, of_image = cameras.times.unique(return_inverse=True)
    seen = of_image.bincount(minlength=len(moments))
    numbers = camera_numbers(cameras.camera_to_world.double().numpy())
    return Moments(
        count=len(moments),
        first=round(float(moments[0]), 6),
        last=round(float(moments[-1]), 6),
        images_least=int(seen.min()),
        images_most=int(seen.max()),
        cameras=max(numbers) + 1,
        missing=_missing_moments(scene, numbers, of_image.tolist(), moments.tolist()),
    )


def _missing_moments(
    scene: Scene, numbers: list[int], of_image: list[int], moments: list[float]
) -> list[str]:
    """What each camera of a rig lacks; nothing where cameras are not expected to see everything."""
    seen: dict[int, set[int]] = {}
    first: dict[int, int] = {}
    for image, (camera, moment) in enumerate(zip(numbers, of_image, strict=True)):
        seen.setdefault(camera, set()).add(moment)
        first.setdefault(camera, image)
    expected = len(seen) * len(moments)
    if len(moments) < 2 or 2 * sum(len(each) for each in seen.values()) < expected:
        return []
    lines = []
    for camera, there in seen.items():
        lacking = [time for moment, time in enumerate(moments) if moment not in there]
        if lacking:
            image = first[camera]
            name = f"camera {camera}" if scene.images is None else scene.images.name(image)
            times = ", ".join(f"{time:.4g}" for time in lacking[:3]) + ", ..." * (len(lacking) > 3)
            lines.append(
                f"the camera of {name} lacks {len(lacking)} of {len(moments)} moments ({times})"
            )
    return lines
