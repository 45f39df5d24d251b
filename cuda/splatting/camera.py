"""One camera as the splatting kernels take it: the pose on the device, the rest as numbers."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from lumigraph.core import lenses
from lumigraph.core.cameras import CameraModel, Cameras
from lumigraph.core.errors import InputError
from lumigraph.core.shapes import check_shapes

LOW_PASS = 0.3  # pixels^2, added to the covariance on the screen (Kerbl et al. 2023)
NEAR = 0.01
GUARD = 1.3  # times the radius of the image's corners
LARGEST_SIDE = 2**15  # pixels
WIDEST = 1e4  # radius on the plane z = 1
MODELS = (
    CameraModel.PINHOLE,
    CameraModel.OPENCV,
    CameraModel.FISHEYE,
    CameraModel.ORTHOGRAPHIC,
)


@dataclass(frozen=True, eq=False)
class SplatCamera:
    """A camera for `render_gaussians`.

    Raises:
        InputError: a shape, size, focal length or camera model that does not fit.

    >>> camera = SplatCamera(torch.eye(4)[:3], (8.0, 8.0, 4.0, 3.0), 8, 6)
    >>> camera.width, camera.height
    (8, 6)
    """

    world_to_camera: Tensor
    """(3, 4) float on the device of the Gaussians; x right, y down, z forward. May require grad."""
    intrinsics: tuple[float, float, float, float]
    """fx fy cx cy in pixels; see `Cameras` for other models than pinhole."""
    width: int
    """Pixels, at least 0: an image without pixels is legal."""
    height: int
    """Pixels."""
    model: CameraModel = CameraModel.PINHOLE
    """Pinhole, OpenCV, fisheye or orthographic."""
    distortion: tuple[float, ...] = (0.0,) * 8
    """As in `Cameras.distortion`."""
    limit: float = 1e4
    """Where the lens polynomial ends: squared radius (OPENCV) or angle (FISHEYE), see lenses.py."""
    guard: float | None = None
    """OPENCV: radius on the undistorted plane beyond which the points that carry a splat's shape
    are held, a little outside of the image; None finds it from the image's corners."""
    near: float = NEAR
    """Scene units; what lies nearer is not seen."""
    low_pass: float = LOW_PASS
    """Pixels^2 added to the variance on the screen, so that no splat is thinner than a pixel."""

    def __post_init__(self) -> None:
        check_shapes(
            ("world_to_camera", self.world_to_camera, "3 4"), dtype=(torch.float32, torch.float64)
        )
        if self.model not in MODELS:
            names = ", ".join(model.name for model in MODELS)
            raise InputError(
                f"camera model {CameraModel(self.model).name} cannot be splatted; use {names}"
            )
        for name, side in (("width", self.width), ("height", self.height)):
            if not 0 <= side <= LARGEST_SIDE:
                raise InputError(f"{name} must be 0 to {LARGEST_SIDE} pixels; got {side}")
        self._check_numbers()
        if self.guard is None:
            object.__setattr__(self, "guard", self._default_guard())

    def _check_numbers(self) -> None:
        for name, row, count in (
            ("intrinsics", self.intrinsics, 4),
            ("distortion", self.distortion, 8),
        ):
            if len(row) != count:
                raise InputError(f"{name} must hold {count} numbers; got {len(row)}")
            if not all(map(math.isfinite, row)):
                raise InputError(f"{name} must be finite; got {row}")
        if min(self.intrinsics[:2]) <= 0:
            raise InputError(f"focal lengths must be above 0; got {self.intrinsics[:2]}")
        for name, value in (("near", self.near), ("low_pass", self.low_pass)):
            if not (math.isfinite(value) and value >= 0):
                raise InputError(f"{name} must be finite and not negative; got {value}")
        if not (math.isfinite(self.limit) and self.limit >= 0):
            raise InputError(f"limit must be finite and not negative; got {self.limit}")
        if self.model == CameraModel.FISHEYE and self.limit == 0:
            raise InputError("limit must be above 0: this fisheye polynomial grows nowhere")
        if self.guard is not None and not (math.isfinite(self.guard) and self.guard > 0):
            raise InputError(f"guard must be finite and above 0; got {self.guard}")

    def _default_guard(self) -> float:
        if self.model != CameraModel.OPENCV or not self.width or not self.height:
            return GUARD
        fx, fy, cx, cy = self.intrinsics
        x = [(edge - cx) / fx for edge in (0, self.width / 2, self.width)]
        y = [(edge - cy) / fy for edge in (0, self.height / 2, self.height)]
        border = torch.cartesian_prod(
            torch.tensor(x, dtype=torch.float64), torch.tensor(y, dtype=torch.float64)
        )
        straight = lenses.undistort_opencv(border, self.distortion, self.limit)
        radius = float(straight.norm(dim=1).amax())
        # absurd cameras only: farther out than any lens is defined, see lenses.py
        return GUARD * min(radius, WIDEST) if radius > 0 else GUARD * WIDEST

    @classmethod
    def from_cameras(cls, cameras: Cameras, index: int = 0, *, near: float = NEAR) -> SplatCamera:
        """One of a batch of cameras, on their device. Gradients flow to their poses."""
        one = cameras[index]
        pose = one.camera_to_world[0].float()
        rotation = pose[:3, :3].T
        shift = -(rotation @ pose[:3, 3:])
        model = CameraModel(int(one.models[0]))
        if model == CameraModel.OPENCV and not bool(one.distortion.any()):
            model = CameraModel.PINHOLE  # the exact affine map is cheaper
        limit = 1e4
        if model == CameraModel.OPENCV:
            limit = float(lenses.opencv_limits(one.distortion.cpu()))
        elif model == CameraModel.FISHEYE:
            limit = float(lenses.fisheye_limits(one.distortion.cpu()))
        fx, fy, cx, cy = one.intrinsics[0].tolist()
        width, height = one.size(0)
        return cls(
            torch.cat([rotation, shift], dim=1).contiguous(),
            (fx, fy, cx, cy),
            width,
            height,
            model=model,
            distortion=tuple(one.distortion[0].tolist()),
            limit=limit,
            near=near,
        )

    def with_pose(self, world_to_camera: Tensor) -> SplatCamera:
        """The same camera elsewhere; `world_to_camera` is (3, 4)."""
        return dataclasses.replace(self, world_to_camera=world_to_camera)

    def numbers(self) -> list[float]:
        """fx fy cx cy width height near low_pass limit guard and eight of the lens: struct
        SplatCamera of cuda/common/splat.h."""
        size = (float(self.width), float(self.height))
        assert self.guard is not None
        rest = (self.near, self.low_pass, self.limit, self.guard)
        return [*self.intrinsics, *size, *rest, *self.distortion]
