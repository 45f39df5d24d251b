"""Pictures of meshes that were scored against the truth."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from lumigraph.core import Scene
from lumigraph.core.path_shapes import upward
from lumigraph.export.frame_layout import arranged
from lumigraph.export.mesh_evaluation import MeshEvaluation
from lumigraph.export.mesh_reading import TriangleMesh
from lumigraph.export.mesh_scores import MeshError
from lumigraph.training.pictures import write_image

from .drawing import PictureOptions, picture
from .items import MESH_COLOR, ErrorItem, Item, MeshItem, PointErrorItem
from .view import Points

_SHARED = 0.5
"""Length of the mean level viewing direction from which on cameras look from one side."""
_SIZE = (1100, 800)


def error_items(mesh: TriangleMesh, error: MeshError, *, limit: float | None = None) -> list[Item]:
    """What shows the errors: the mesh colored by its distances or, where the truth is sparse, the
    points of the truth on the plain mesh.

    Args:
        limit: upper end of the colors; None takes one by the distances.
    """
    if error.scores.sparse:
        points = PointErrorItem(error.truth_points, error.truth_distances, limit)
        return [MeshItem(mesh, color=MESH_COLOR), points]
    return [ErrorItem(mesh, error.vertex_distances, limit)]


def picture_of_errors(
    evaluation: MeshEvaluation, scene: Scene, *, out: str | Path, limit: float | None = None
) -> Path:
    """Draw a scored mesh from where the cameras stand; where these stand all around, from two
    opposite sides.

    Args:
        scene: whose cameras say what is up, and from where one looks.
        out: a .png file.
        limit: upper end of the colors; None takes one by the distances.

    Raises:
        InputError and its kinds: see `picture`.
    """
    items = error_items(evaluation.mesh, evaluation.error, limit=limit)
    cameras = scene.cameras.to("cpu", dtype=torch.float64)
    move = scene.normalization.inverse()
    cameras = cameras.with_poses(move.apply_poses(cameras.camera_to_world))
    up, forward = upward(cameras).numpy(), cameras.forwards.mean(dim=0).numpy()
    level = forward - up * (up @ forward)
    ahead = [level]
    if np.linalg.norm(level) < _SHARED:
        across = _across(up)
        ahead = [across, -across]
    pictures = []
    for number, direction in enumerate(ahead):
        options = PictureOptions(
            size=_SIZE,
            up=_three(up),
            toward=_three(direction),
            title="the other side" if number else evaluation.name,
            subtitle="" if number else _told(evaluation),
        )
        pictures.append(picture(items, options=options).image)
    write_image(Path(out), torch.from_numpy(arranged(pictures, "row")).float() / 255)
    return Path(out)


def _told(evaluation: MeshEvaluation) -> str:
    truth = Path(evaluation.numbers["truth"]).name
    return f"against {truth}: {evaluation.error.scores.short()}"


def _three(vector: Points) -> tuple[float, float, float]:
    x, y, z = vector.tolist()
    return x, y, z


def _across(up: Points) -> Points:
    """(3,) some unit direction across a unit vector."""
    axis = np.eye(3)[int(np.abs(up).argmin())]
    level = axis - up * (up @ axis)
    return np.asarray(level / np.linalg.norm(level))
