"""Colors for the texels of an atlas: means of the photographs that see them.

A texel takes part in a picture where it faces the camera, lies within it, and the depth that the
run renders there is its own. The nearer and the straighter a camera looks, the more its picture
counts. Texels that no camera sees take the colors of the surface's vertices. Letters: N texels, H W
picture.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lumigraph.core import CameraModel, Cameras, Frame, Scene

from .depth_fusion import chosen_views
from .depth_views import LEAST_COSINE, DepthView, depth_view
from .isosurface import Surface
from .mesh_options import MeshOptions
from .render_source import Renders
from .texture_atlas import Atlas, Texels, covered
from .tsdf import sampled

TOLERANCE = 3.0
"""Voxels by which the depth of a texel may differ from the rendered one."""
SHARPNESS = 4.0
"""Power of the cosine of the viewing angle in the weight of a picture: few straight looks stay
sharper than many."""


class TexturedSurface(NamedTuple):
    """Triangles with a picture on them, outward counter-clockwise."""

    vertices: NDArray[np.float64]
    """(V, 3)"""
    triangles: NDArray[np.int64]
    """(T, 3)"""
    coordinates: NDArray[np.float64]
    """(V, 2) u v from the lower left corner of the picture, 0 to 1."""
    image: NDArray[np.uint8]
    """(H, W, 3) sRGB."""


def baked(
    atlas: Atlas,
    surface: Surface,
    model: Renders,
    scene: Scene,
    options: MeshOptions,
    *,
    voxel: float,
    on_view: Callable[[int, int], None] | None = None,
) -> TexturedSurface:
    """Color the texels of a surface that was laid flat.

    Args:
        surface: in the scene frame; its colors are for what nobody sees.
        model: renders the depths that tell what is seen.
        scene: with the training cameras and their photographs.
        options: views, depth, whose colors.
        voxel: side of a voxel in scene units.
        on_view: told after each picture how many are done, and of how many.
    """
    texels = covered(atlas)
    corners = surface.vertices[atlas.origin[atlas.triangles[texels.triangles]]]
    points = torch.from_numpy((corners * texels.weights[:, :, None]).sum(axis=1)).float()
    across = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals = torch.nn.functional.normalize(torch.from_numpy(across).float(), dim=1)
    total, weights = torch.zeros(len(points), 3), torch.zeros(len(points), 1)
    indices = chosen_views(scene, options.views)
    for done, index in enumerate(indices, start=1):
        camera = scene.cameras[index].to("cpu")
        frame = model.render(camera, channels=("color", "opacity", "depth")).to("cpu")
        view = depth_view(frame, camera, kind=options.depth, truncation=2 * voxel)
        color, cover = _picture(scene, index, frame, options)
        rows, weight = _seen(view, camera, points, normals, TOLERANCE * voxel + view.spacing)
        where = _place(camera, points[rows])
        share = weight[:, None] * sampled(cover[None], where).T
        total[rows] += sampled(color.permute(2, 0, 1), where).T * share
        weights[rows] += share
        if on_view is not None:
            on_view(done, len(indices))
    own = surface.colors[atlas.origin[atlas.triangles[texels.triangles]]] / 255.0
    plain = torch.from_numpy((own * texels.weights[:, :, None]).sum(axis=1)).float()
    colors = torch.where(weights > 1e-6, total / weights.clamp_min(1e-6), plain)
    image = _filled(texels, (colors.clamp(0, 1) * 255).round().byte().numpy(), atlas.shape)
    return TexturedSurface(
        surface.vertices[atlas.origin], atlas.triangles, atlas.coordinates, image
    )


def _picture(scene: Scene, index: int, frame: Frame, options: MeshOptions) -> tuple[Tensor, Tensor]:
    """The colors of a view (H, W, 3), and how much of each pixel is scene (H, W)."""
    if options.texture_colors == "renderings" or scene.images is None:
        return torch.nan_to_num(frame.color).clamp(0, 1), torch.ones_like(frame.opacity)
    image = scene.images.load(index).float() / 255
    cover = image[..., 3] if image.shape[2] == 4 else torch.ones(image.shape[:2])
    if scene.masks is not None:
        cover = cover * scene.masks.load(index).float()
    # a pixel that is half background says less than half of the color
    return image[..., :3], (cover > 0.99).float()


def _place(camera: Cameras, points: Tensor) -> Tensor:
    """(M, 2) where points (M, 3) lie in the picture, from -1 to 1."""
    pixels, _ = camera.project(points, 0)
    return pixels * (2 / camera.sizes[0].to(pixels.dtype)) - 1


def _seen(
    view: DepthView, camera: Cameras, points: Tensor, normals: Tensor, tolerance: float
) -> tuple[Tensor, Tensor]:
    """Rows of the texels that a camera sees, and how much its look counts."""
    rays = (
        points - camera.positions
        if camera.kinds != (CameraModel.ORTHOGRAPHIC,)
        else camera.forwards.expand_as(points)
    )
    distance = rays.norm(dim=1).clamp_min(1e-9)
    cosine = -(normals * rays).sum(dim=1) / distance
    rows = ((cosine > LEAST_COSINE) & camera.in_view(points, 0)).nonzero()[:, 0]
    _, depth = camera.project(points[rows], 0)
    maps = torch.stack([view.depth, view.known.float()])
    found, known = sampled(maps, _place(camera, points[rows]))
    good = (known > 0.999) & ((found - depth).abs() < tolerance)
    rows = rows[good]
    return rows, cosine[rows] ** SHARPNESS / distance[rows].square()


def _filled(texels: Texels, colors: NDArray[np.uint8], shape: tuple[int, int]) -> NDArray[np.uint8]:
    """A picture (H, W, 3) with the texels; all others take the color of the nearest one."""
    from scipy.ndimage import distance_transform_edt

    image, empty = np.zeros((*shape, 3), np.uint8), np.ones(shape, bool)
    image[texels.rows, texels.columns] = colors
    empty[texels.rows, texels.columns] = False
    rows, columns = distance_transform_edt(empty, return_distances=False, return_indices=True)
    return np.asarray(image[rows, columns])
