"""Batched cameras of mixed models: pixels to rays, points to pixels, resizing and cropping.

Axes of a camera: x right, y down, z forward (OpenCV). A pixel is (x, y) with its centre at +0.5,
so an image covers [0, width] x [0, height]. Letters: C cameras, N rays or points, H W image.

What `intrinsics` (fx, fy, cx, cy) mean, with (u, v) the lens coordinates and x = fx u + cx:

    PINHOLE, OPENCV    u, v = X/Z, Y/Z, distorted for OPENCV;          fx, fy in pixels
    FISHEYE            (u, v) has the length theta', see lenses.py;    fx, fy in pixels per radian
    EQUIRECTANGULAR    u = longitude, v = latitude (downwards);        fx, fy in pixels per radian
    ORTHOGRAPHIC       u, v = X, Y;                                    fx, fy in pixels per unit

The arithmetic runs in the dtype of `camera_to_world`: float32 for work, float64 (``to(dtype=...)``)
where a pixel must come back to 1e-4 in large images, which float32 cannot express.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from lumigraph.core import lenses
from lumigraph.core.camera_checks import check_cameras, coefficients, per_camera, pose_matrices
from lumigraph.core.camera_models import (
    PROJECTIONS,
    UNPROJECTIONS,
    CameraModel,
    Lens,
    LensFunction,
)
from lumigraph.core.errors import InputError
from lumigraph.core.rays import Rays

Index = int | slice | Tensor | Sequence[int]
Numbers = float | Sequence[float] | Tensor


@dataclass(frozen=True, eq=False)
class Cameras:
    """A batch of posed cameras; one camera is a batch of length 1.

    Raises:
        InputError: a wrong shape, a pose that is not finite or not a rotation with a position, a
            size below one pixel, a focal length that is not positive, an unknown model.

    >>> cameras = Cameras.from_intrinsics(torch.eye(4), 4, 2, 2.0)
    >>> cameras.rays(torch.tensor([0]), torch.tensor([[2.0, 1.0]])).directions.tolist()
    [[0.0, 0.0, 1.0]]
    >>> pixels, depth = cameras.project(torch.tensor([[1.0, 0.0, 2.0]]), 0)
    >>> pixels.tolist(), depth.tolist()
    ([[3.0, 1.0]], [2.0])
    """

    camera_to_world: Tensor
    """(C, 4, 4) float, camera axes and position in the scene frame."""
    intrinsics: Tensor
    """(C, 4) float, fx fy cx cy in pixels."""
    sizes: Tensor
    """(C, 2) int64, width and height in pixels."""
    models: Tensor
    """(C,) int64, values of :class:`CameraModel`."""
    distortion: Tensor
    """(C, 8) float; OPENCV: k1 k2 p1 p2 k3 k4 k5 k6; FISHEYE: k1 k2 k3 k4 0 0 0 0."""
    times: Tensor | None = None
    """(C,) float capture times in [0, 1]."""

    def __post_init__(self) -> None:
        check_cameras(self)

    @classmethod
    def from_intrinsics(
        cls,
        camera_to_world: Tensor | Sequence,
        width: Numbers,
        height: Numbers,
        fx: Numbers | None = None,
        fy: Numbers | None = None,
        cx: Numbers | None = None,
        cy: Numbers | None = None,
        *,
        model: CameraModel | Sequence[CameraModel] | Tensor = CameraModel.PINHOLE,
        distortion: Tensor | Sequence | None = None,
        times: Numbers | None = None,
    ) -> Cameras:
        """Cameras from poses and intrinsics that are one for all or one for each.

        Args:
            camera_to_world: (C, 4, 4), (C, 3, 4), (4, 4) or (3, 4), x right, y down, z forward;
                rotations that are inexact by rounding are made exact.
            width, height: image size in pixels.
            fx, fy: focal lengths in pixels (per unit for ORTHOGRAPHIC); `fy` defaults to `fx`.
                EQUIRECTANGULAR covers the whole sphere and needs none.
            cx, cy: principal point in pixels, by default the middle of the image.
            model: the camera model, or one for each camera.
            distortion: up to 8 coefficients in the order of `Cameras.distortion`, for all cameras
                or as (C, 1..8); missing ones are 0.
            times: capture times in [0, 1].

        >>> Cameras.from_intrinsics(torch.eye(4), 640, 480, 500.0).intrinsics.tolist()
        [[500.0, 500.0, 320.0, 240.0]]
        """
        poses = pose_matrices(camera_to_world)
        count, device = poses.shape[0], poses.device

        def column(name: str, value: Numbers) -> Tensor:
            return per_camera(name, value, count, device)

        sizes = torch.stack([column("width", width), column("height", height)], dim=-1)
        models = column("model", model).to(torch.int64)
        sphere = models == CameraModel.EQUIRECTANGULAR
        if fx is None:
            if not bool(sphere.all()):
                raise InputError("fx is missing; give the focal length in pixels")
            fx = 1.0
        focal_x = torch.where(sphere, sizes[:, 0] / (2 * math.pi), column("fx", fx))
        focal_y = column("fy", fx if fy is None else fy)
        focal_y = torch.where(sphere, sizes[:, 1] / math.pi, focal_y)
        centre_x = sizes[:, 0] / 2 if cx is None else column("cx", cx)
        centre_y = sizes[:, 1] / 2 if cy is None else column("cy", cy)
        centre_x = torch.where(sphere, sizes[:, 0] / 2, centre_x)
        centre_y = torch.where(sphere, sizes[:, 1] / 2, centre_y)
        intrinsics = torch.stack([focal_x, focal_y, centre_x, centre_y], dim=-1)
        return cls(
            camera_to_world=poses,
            intrinsics=intrinsics.to(poses.dtype),
            sizes=sizes.round().to(torch.int64),
            models=models,
            distortion=coefficients(distortion, poses),
            times=None if times is None else column("times", times).to(poses.dtype),
        )

    @classmethod
    def concatenate(cls, parts: Sequence[Cameras]) -> Cameras:
        """All cameras of `parts` in one batch; times must be in all parts or in none."""
        if not parts:
            raise InputError("parts must hold at least one batch of cameras; got none")
        timed = [part.times is not None for part in parts]
        if any(timed) and not all(timed):
            raise InputError("times must be given for all batches of cameras or for none")
        columns: dict[str, Any] = {}
        for field in fields(cls):
            column = [getattr(part, field.name) for part in parts]
            columns[field.name] = None if column[0] is None else torch.cat(column)
        return cls(**columns)

    def __len__(self) -> int:
        return self.camera_to_world.shape[0]

    def __getitem__(self, index: Index) -> Cameras:
        """Some of the cameras: an int (a batch of one), slice, index tensor or boolean mask."""
        if isinstance(index, int):
            if not -len(self) <= index < len(self):
                raise IndexError(f"camera {index} of {len(self)} does not exist")
            index %= len(self)
            index = slice(index, index + 1)
        elif isinstance(index, Sequence):
            index = torch.as_tensor(index, dtype=torch.int64)
        if isinstance(index, Tensor):
            index = index.to(self.device)
        return self._changed(
            **{name: None if value is None else value[index] for name, value in self._items()}
        )

    def select(self, indices: Tensor | Sequence[int]) -> Cameras:
        """The cameras with the given indices, in their order."""
        return self[indices]

    def at_time(self, time: float | None) -> Cameras:
        """The same cameras at one time in [0, 1]; None where time plays no part.

        Raises:
            InputError: a time out of range.
        """
        if time is None:
            return self._changed(times=None)
        if not 0 <= time <= 1:
            raise InputError(f"time must lie in [0, 1]; got {time}")
        return self._changed(times=self.intrinsics.new_full((len(self),), time))

    @property
    def device(self) -> torch.device:
        """The device of all tensors."""
        return self.camera_to_world.device

    @property
    def dtype(self) -> torch.dtype:
        """The floating-point type in which rays and projections are computed."""
        return self.camera_to_world.dtype

    @property
    def positions(self) -> Tensor:
        """(C, 3) camera positions in the scene frame."""
        return self.camera_to_world[:, :3, 3]

    @property
    def forwards(self) -> Tensor:
        """(C, 3) unit viewing directions in the scene frame."""
        return self.camera_to_world[:, :3, 2]

    def size(self, index: int) -> tuple[int, int]:
        """Width and height in pixels of one camera."""
        width, height = self.sizes[index].tolist()
        return width, height

    def to(
        self, device: torch.device | str | None = None, *, dtype: torch.dtype | None = None
    ) -> Cameras:
        """The same cameras on another device, or with another floating-point type."""
        changed = {}
        for name, value in self._items():
            if value is None:
                continue
            wanted = dtype if value.is_floating_point() else None
            changed[name] = value.to(device=device, dtype=wanted)
        return self._changed(**changed)

    def with_poses(self, camera_to_world: Tensor) -> Cameras:
        """The same cameras at other poses (C, 4, 4); gradients flow to the poses."""
        if camera_to_world.shape != self.camera_to_world.shape:
            raise InputError(
                f"camera_to_world must have shape {tuple(self.camera_to_world.shape)}; "
                f"got {tuple(camera_to_world.shape)}"
            )
        return self._changed(camera_to_world=camera_to_world)

    def resized(self, scale: float) -> Cameras:
        """The same views with every image side multiplied by `scale` and rounded to pixels.

        >>> Cameras.from_intrinsics(torch.eye(4), 9, 6, 8.0).resized(0.5).sizes.tolist()
        [[4, 3]]
        """
        if not (math.isfinite(scale) and scale > 0):
            raise InputError(f"scale must be a positive number; got {scale}")
        return self._with_sizes((self.sizes * scale).round().to(torch.int64).clamp_min(1))

    def resized_to(self, width: int, height: int) -> Cameras:
        """The same views at width x height pixels."""
        if width < 1 or height < 1:
            raise InputError(f"width and height must be at least 1 pixel; got {width} x {height}")
        size = torch.tensor([width, height], dtype=torch.int64, device=self.device)
        return self._with_sizes(size.expand(len(self), 2).clone())

    def cropped(self, x: int, y: int, width: int, height: int) -> Cameras:
        """The window of width x height pixels whose top left corner is pixel (x, y)."""
        window = torch.tensor([x, y, width, height], dtype=torch.int64, device=self.device)
        corner, size = window[:2], window[2:]
        fits = (corner >= 0) & (size >= 1) & (corner + size <= self.sizes)
        if not bool(fits.all()):
            smallest = " x ".join(str(side) for side in self.sizes.amin(dim=0).tolist())
            raise InputError(
                f"crop {width} x {height} at ({x}, {y}) must lie inside the image of {smallest}"
            )
        shift = torch.cat([torch.zeros_like(corner), corner]).to(self.dtype)
        return self._changed(
            intrinsics=self.intrinsics - shift, sizes=size.expand(len(self), 2).clone()
        )

    def rays(self, camera_indices: Tensor, pixels: Tensor) -> Rays:
        """Rays through pixels.

        Args:
            camera_indices: (N,) int, the camera of each pixel.
            pixels: (N, 2) x, y in pixels; the centre of the first pixel is (0.5, 0.5).

        Returns:
            N rays in the scene frame with unit directions, differentiable with respect to
            the poses, the intrinsics and the pixels.

        >>> cameras = Cameras.from_intrinsics(torch.eye(4), 4, 2, 2.0)
        >>> cameras.rays(torch.tensor([0, 0]), torch.rand(2, 2)).origins.tolist()
        [[0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]
        """
        return self._rays(camera_indices, camera_indices, pixels)

    def image_rays(self, index: int, *, step: int = 1) -> Rays:
        """Rays of one whole image in row-major order.

        Args:
            index: the camera.
            step: take the middle of every block of step x step pixels instead of every pixel;
                the image then has max(1, W // step) columns and max(1, H // step) rows.
        """
        if step < 1:
            raise InputError(f"step must be at least 1 pixel; got {step}")
        width, height = self.size(index)
        columns, rows = max(1, width // step), max(1, height // step)
        x = (torch.arange(columns, device=self.device, dtype=self.dtype) + 0.5) * step
        y = (torch.arange(rows, device=self.device, dtype=self.dtype) + 0.5) * step
        pixels = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1).reshape(-1, 2)
        index %= len(self)
        camera_indices = torch.full((pixels.shape[0],), index, device=self.device)
        return self._rays(slice(index, index + 1), camera_indices, pixels)

    def project(self, points: Tensor, camera_indices: Tensor | int) -> tuple[Tensor, Tensor]:
        """Where points of the scene appear.

        Args:
            points: (N, 3) in the scene frame.
            camera_indices: (N,) int, or one camera for all points.

        Returns:
            Pixels (N, 2), always finite for finite points, and the depth (N,) along the optical
            axis; for EQUIRECTANGULAR, which has no axis, the distance. Pixels of points that a
            camera cannot see mean nothing: ask :meth:`in_view`. Differentiable with respect to
            the points, the poses and the intrinsics.
        """
        chosen = self._chosen(camera_indices)
        local = self._to_camera(points, chosen)
        plane = self._by_kind(chosen, local, PROJECTIONS)
        focal, centre = self.intrinsics[chosen].split(2, dim=-1)
        depth = local[:, 2]
        if CameraModel.EQUIRECTANGULAR in self.kinds:
            sphere = self.models[chosen] == CameraModel.EQUIRECTANGULAR
            depth = torch.where(sphere, local.norm(dim=-1), depth)
        return torch.addcmul(centre, plane, focal), depth

    def in_view(self, points: Tensor, camera_indices: Tensor | int) -> Tensor:
        """(N,) bool: whether each point (N, 3) lies in front of its camera and in its image."""
        pixels, depth = self.project(points, camera_indices)
        chosen = self._chosen(camera_indices)
        inside = ((pixels >= 0) & (pixels < self.sizes[chosen])).all(dim=-1)
        # A fisheye lens may look behind itself.
        return inside & ((depth > 0) | (self.models[chosen] == CameraModel.FISHEYE))

    def depth_factors(self, rays: Rays) -> Tensor:
        """(N,) what to multiply a distance along each ray by to get its depth.

        The rays need `camera_indices`. The factor is the cosine of the angle to the optical axis,
        and 1 for EQUIRECTANGULAR.
        """
        if rays.camera_indices is None:
            raise InputError("rays must carry camera_indices to turn distances into depths")
        factors = (self.forwards[rays.camera_indices] * rays.directions).sum(dim=-1)
        sphere = self.models[rays.camera_indices] == CameraModel.EQUIRECTANGULAR
        return torch.where(sphere, 1.0, factors)

    @cached_property
    def kinds(self) -> tuple[CameraModel, ...]:
        """The models present, sorted."""
        return tuple(CameraModel(value) for value in torch.unique(self.models).tolist())

    @cached_property
    def _has_distortion(self) -> bool:
        return self.distortion.requires_grad or bool(self.distortion.any())

    @cached_property
    def _lens_limits(self) -> Tensor:
        """(C,) the limit of each lens, see lenses.py."""
        limits = lenses.opencv_limits(self.distortion.detach())
        if CameraModel.FISHEYE in self.kinds:
            angles = lenses.fisheye_limits(self.distortion.detach())
            limits = torch.where(self.models == CameraModel.FISHEYE, angles, limits)
        return limits

    @cached_property
    def _shared_lens(self) -> Lens | None:
        """The one lens of all cameras as plain numbers, which are cheaper than one for each."""
        if self.distortion.requires_grad or len(self.kinds) > 1 or len(self) == 0:
            return None
        if bool((self.distortion != self.distortion[:1]).any()):
            return None
        return Lens(self.distortion[0].tolist(), float(self._lens_limits[0]))

    def _lens(self, chosen: Tensor | slice) -> Lens:
        if self._shared_lens is not None:
            return self._shared_lens
        return Lens(self.distortion[chosen].unbind(-1), self._lens_limits[chosen])

    def _rays(self, chosen: Tensor | slice, camera_indices: Tensor, pixels: Tensor) -> Rays:
        pixels = pixels.to(self.dtype)
        poses = self.camera_to_world[chosen]
        focal, centre = self.intrinsics[chosen].split(2, dim=-1)
        plane = (pixels - centre) / focal
        origins = poses[:, :3, 3]
        if self.kinds == (CameraModel.PINHOLE,):
            directions = _rotated(poses, plane)
        else:
            local = self._by_kind(chosen, plane, UNPROJECTIONS)
            directions = _rotated(poses, local[:, :2], local[:, 2:])
        if CameraModel.ORTHOGRAPHIC in self.kinds:
            flat = (self.models[chosen] == CameraModel.ORTHOGRAPHIC)[:, None]
            offsets = torch.where(flat, plane, torch.zeros_like(plane))
            origins = origins + _rotated(poses, offsets, torch.zeros_like(plane[:, :1]))
        return Rays(
            origins=origins.expand_as(directions).contiguous(),
            directions=directions / directions.norm(dim=-1, keepdim=True),
            camera_indices=camera_indices,
            times=None if self.times is None else self.times[camera_indices],
        )

    def _by_kind(
        self, chosen: Tensor | slice, values: Tensor, functions: dict[CameraModel, LensFunction]
    ) -> Tensor:
        """Apply the function of each ray's camera model to `values` (N, 2 or 3)."""
        if len(self.kinds) == 1:
            return functions[self._plain(self.kinds[0])](values, self._lens(chosen))
        count = values.shape[0]
        cameras = torch.arange(len(self), device=self.device)[chosen].expand(count)
        models = self.models[cameras]
        result = values.new_empty(count, 3 if values.shape[1] == 2 else 2)
        for kind in self.kinds:
            of_kind = (models == kind).nonzero()[:, 0]
            part = functions[self._plain(kind)](values[of_kind], self._lens(cameras[of_kind]))
            result = result.index_put((of_kind,), part)
        return result

    def _plain(self, kind: CameraModel) -> CameraModel:
        # An OpenCV lens without distortion is a pinhole, and much cheaper.
        undistorted = kind == CameraModel.OPENCV and not self._has_distortion
        return CameraModel.PINHOLE if undistorted else kind

    def _chosen(self, camera_indices: Tensor | int) -> Tensor | slice:
        """A row selector; one camera stays one row, which then broadcasts over the points."""
        if isinstance(camera_indices, Tensor):
            return camera_indices
        if not -len(self) <= camera_indices < len(self):
            raise InputError(f"camera {camera_indices} does not exist; there are {len(self)}")
        index = camera_indices % len(self)
        return slice(index, index + 1)

    def _to_camera(self, points: Tensor, chosen: Tensor | slice) -> Tensor:
        poses = self.camera_to_world[chosen]
        offsets = points.to(self.dtype) - poses[:, :3, 3]
        if poses.shape[0] == 1:
            return offsets @ poses[0, :3, :3]
        return (poses[:, :3, :3] * offsets[:, :, None]).sum(dim=1)

    def _with_sizes(self, sizes: Tensor) -> Cameras:
        ratio = sizes.to(torch.float64) / self.sizes
        intrinsics = self.intrinsics * torch.cat([ratio, ratio], dim=-1)
        return self._changed(intrinsics=intrinsics.to(self.dtype), sizes=sizes)

    def _items(self) -> Iterator[tuple[str, Tensor | None]]:
        return ((field.name, getattr(self, field.name)) for field in fields(self))

    def _changed(self, **changes: Tensor | None) -> Cameras:
        # Parts of checked cameras need no second check, which would wait for the device.
        result = object.__new__(Cameras)
        for name, value in self._items():
            object.__setattr__(result, name, changes.get(name, value))
        return result


def _rotated(poses: Tensor, plane: Tensor, forward: Tensor | None = None) -> Tensor:
    """Rotate (x, y, forward) from camera axes to the scene; `forward` None stands for 1."""
    axis_x, axis_y, axis_z = poses[:, :3, :3].unbind(-1)
    ahead = axis_z if forward is None else axis_z * forward
    return torch.addcmul(torch.addcmul(ahead, axis_y, plane[:, 1:2]), axis_x, plane[:, :1])
