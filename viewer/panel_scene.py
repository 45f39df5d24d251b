"""What stands in the scene beside the picture: captured cameras, points, meshes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from lumigraph.core import CameraModel, Cameras, Scene

from .callbacks import safe
from .meshes import MESH_SUFFIXES, MeshFile, has_triangles
from .places import focus_distance
from .session import Session

if TYPE_CHECKING:
    from .viewer import Viewer

MOST_POINTS = 500_000
"""Points that are sent to a browser; of more, an even choice."""
FRUSTUM_SIZE = 0.04
"""Depth of a drawn camera, as a part of the scene's side."""
FRUSTUM_COLOR, POINT_COLOR = (60, 110, 220), (90, 90, 90)


def build_scene_tab(session: Session) -> None:
    """Captured cameras to jump to, the photograph over the picture, points, meshes."""
    scene = session.source.scene
    if scene is not None and len(scene.cameras):
        _build_cameras(session, scene)
    if scene is not None and scene.points is not None and len(scene.points):
        _build_points(session, scene)
    _build_meshes(session)


def _build_cameras(session: Session, scene: Scene) -> None:
    gui = session.client.gui
    shown = gui.add_checkbox("Cameras", False)
    number = gui.add_number(
        "Camera", 0, min=0, max=len(scene.cameras) - 1, step=1, hint="Of the capture, from 0"
    )
    jump = gui.add_button("Go to this camera")
    name = gui.add_markdown("")
    share = gui.add_slider(
        "Photograph", 0.0, 1.0, 0.05, 0.0, hint="How much of it lies over the picture", visible=True
    )
    share.visible = scene.images is not None

    def index() -> int:
        return int(np.clip(int(number.value), 0, len(scene.cameras) - 1))

    @jump.on_click
    @safe(session)
    def jumped() -> None:
        camera = scene.cameras[index()]
        name.content = _camera_name(scene, index())
        session.change(camera=index())
        session.jump(camera, distance=focus_distance(scene, camera.camera_to_world[0]))

    @share.on_update
    @safe(session)
    def blended() -> None:
        session.restyle(photo_share=float(share.value))

    @shown.on_update
    @safe(session)
    def cameras_shown() -> None:
        if shown.value:
            points = frustum_lines(scene.cameras, FRUSTUM_SIZE * scene.side)
            session.client.scene.add_line_segments(
                "/cameras", points, FRUSTUM_COLOR, thickness=1.5, thickness_units="screen"
            )
        else:
            session.client.scene.remove_by_name("/cameras")
        needs_depth(session, "cameras", bool(shown.value))


def _camera_name(scene: Scene, index: int) -> str:
    label = f"camera {index}" if scene.images is None else f"`{scene.images.name(index)}`"
    splits = [split for split, members in scene.splits.items() if index in members.tolist()]
    return f"{label} ({', '.join(splits)})" if splits else label


def _build_points(session: Session, scene: Scene) -> None:
    gui = session.client.gui
    assert scene.points is not None
    count = len(scene.points)
    shown = gui.add_checkbox(f"Points ({count:,})", False)
    size = gui.add_slider("Point size", 0.0005, 0.02, 0.0005, 0.003, hint="Part of the scene")

    @shown.on_update
    @size.on_update
    @safe(session)
    def points_shown() -> None:
        points = scene.points
        if shown.value and points is not None:
            step = max(1, -(-len(points) // MOST_POINTS))
            colors = points.colors
            session.client.scene.add_point_cloud(
                "/points",
                points.positions[::step].cpu().numpy().astype(np.float32),
                POINT_COLOR if colors is None else colors[::step].cpu().numpy(),
                point_size=float(size.value) * scene.side,
                point_shape="circle",
                precision="float32",
            )
        elif not shown.value:
            session.client.scene.remove_by_name("/points")
        needs_depth(session, "points", bool(shown.value))


def _build_meshes(session: Session) -> None:
    gui = session.client.gui
    nothing = "none"
    found = mesh_files(session.viewer)
    handles: dict[str, Any] = {}

    def show(mesh: MeshFile | None) -> None:
        if "mesh" in handles:
            handles.pop("mesh").remove()
        if mesh is not None:
            handles["mesh"] = session.viewer.add_mesh_file(mesh, scene=session.client.scene)
        needs_depth(session, "mesh", mesh is not None)

    if found:
        choice = gui.add_dropdown("Mesh of the run", (nothing, *found), initial_value=nothing)

        @choice.on_update
        @safe(session)
        def chosen() -> None:
            path = found.get(choice.value)
            show(None if path is None else MeshFile.open(path))

    upload = gui.add_upload_button(
        "Show a mesh file (.glb, .obj, .ply)",
        mime_type=".glb,.obj,.ply",
        hint="In the capture's own frame",
    )

    @upload.on_upload
    @safe(session)
    def uploaded() -> None:
        file = upload.value
        show(MeshFile.from_bytes(Path(file.name).name, file.content))


def mesh_files(viewer: Viewer) -> dict[str, Path]:
    """Meshes that lie in the run folder or in its folder of pictures, by name."""
    run = getattr(viewer.source, "run", None)
    if run is None:
        return {}
    folders = (run.path, run.path / "renders", run.path / "exports")
    files = [file for folder in folders if folder.is_dir() for file in sorted(folder.iterdir())]
    kinds = [f for f in files if f.suffix.lower() in MESH_SUFFIXES and f.is_file()]
    return {f.name: f for f in kinds if f.suffix.lower() != ".ply" or has_triangles(f)}


def needs_depth(session: Session, what: str, shown: bool) -> None:
    """Pictures come with depths while anything is drawn over them."""
    if shown:
        session.overlays.add(what)
    else:
        session.overlays.discard(what)
    session.change(moving=False, depth=bool(session.overlays) or session.viewer.composites)


def frustum_lines(cameras: Cameras, depth: float) -> np.ndarray:
    """(8 C, 2, 3) float32 line segments: from each camera to its corners, and around them.

    Cameras that are not pinholes are drawn with the angles of one.
    """
    poses = cameras.camera_to_world.double().cpu()
    sizes = cameras.sizes.double().cpu()
    focal = cameras.intrinsics[:, :2].double().cpu()
    sphere = torch.tensor([int(model) == CameraModel.EQUIRECTANGULAR for model in cameras.models])
    half = torch.where(sphere[:, None], 0.5, sizes / 2 / focal) * depth
    signs = torch.tensor([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]], dtype=torch.float64)
    flat = half[:, None] * signs
    corners = torch.cat([flat, torch.full_like(flat[..., :1], depth)], dim=2)
    world = corners @ poses[:, :3, :3].transpose(1, 2) + poses[:, None, :3, 3]
    apex = poses[:, None, :3, 3].expand_as(world)
    legs = torch.stack([apex, world], dim=2)
    frame = torch.stack([world, world.roll(-1, dims=1)], dim=2)
    return torch.cat([legs, frame], dim=1).reshape(-1, 2, 3).float().numpy()
