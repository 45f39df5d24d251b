"""Method `neus` on a moving scene: its moments one after the other (NeuS2, Wang et al. 2023).

The first moment is trained from scratch. Every later one begins with the surface before it, in two
phases. In the first the field is frozen and a rigid motion of the rays is sought, with all levels
on. In the second the field is fitted, coarse levels first, and the motion is refined. Then it is
added to the motions of the moments before:

    field's frame = M_k ... M_2 M_1 scene's frame        (grid space)

so that the field and its occupancy grid stay with what moves.
"""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lumigraph.core import DataError, Scene, Similarity
from lumigraph.core.errors import CheckpointError, ConfigError
from lumigraph.fields.surface_field import FIRST_SHARPNESS, SHARPNESS_RATE
from lumigraph.renderers import MovedSurfaceRenderer, OccupancyGrid, SurfaceRays
from lumigraph.renderers.surface import OCCUPANCY_MARGIN

from .config import NeusConfig
from .method import Progress, StepResult
from .moment_files import MomentRecord, pack_bits
from .neus import NeusMethod, build_field
from .pixels import PixelSampler, RayBatch
from .rigid_motion import RigidMotion, moved_rays
from .sequence_plan import TOLERANCE, SequencePlan, key_moment
from .silhouettes import check_views

FITTING_RATE = 0.1  # of the motion's rate, while the field is fitted
FIRST_LEVELS = 0.2  # of the levels, on when the fitting of a later moment begins


def is_sequence(scene: Scene, config: NeusConfig) -> bool:
    """Whether the moments of a scene are trained one after the other."""
    moments = scene.moments if config.sequence else None
    return moments is not None and len(moments) > 1


class NeusSequence(NeusMethod):
    """The moments of a scene in training; `field` is that of the moment it is at.

    Args:
        scene: of `scene_of_surface`, with times and a split "train".
        config: settings.
        device: where to train.

    Raises:
        ConfigError: a setting that only still scenes allow, or too few steps.
        DataError: a moment lacks views, or what a loss needs.
    """

    def __init__(self, scene: Scene, config: NeusConfig, device: torch.device) -> None:
        assert scene.moments is not None
        self._scene, self._times = scene, scene.moments.tolist()
        _check_settings(scene, config)
        self._plan = SequencePlan.of(config, len(self._times))
        _check_moments(scene, self._times)
        super().__init__(scene.at_moment(0), config, device)
        self.renderer = MovedSurfaceRenderer(
            self.renderer.occupancy,
            motion=self.world_motion,
            background=self.renderer.background,
            near=self.renderer.near,
        )
        self.index = 0
        """The moment in training."""
        self.predicting = False
        """Whether only the motion is sought."""
        self.motion = RigidMotion(device)
        self._before = torch.eye(4, dtype=torch.float64, device=device)  # motions of those before
        self._begin_step = 0
        self._begin: float | None = 0.0  # fraction of the run; None: the run has a new end
        self._phase_step, self._phase_fraction = 0, 0.0

    def world_motion(self) -> Similarity:
        """From the scene's frame to that of the field, in scene units."""
        bounds = self._scene.bounds.double()
        side = float(bounds[1, 0] - bounds[0, 0])
        to_grid = Similarity(1 / side, torch.eye(3), -bounds[0] / side)
        motion = Similarity.from_matrix(self._moved().detach().cpu())
        return to_grid.inverse().compose(motion.compose(to_grid))

    def _moved(self) -> Tensor:
        """(4, 4) float64 motion of grid space, those before and the one that is learnt."""
        if self.index == 0:
            return self._before
        return self.motion.matrix().double() @ self._before

    def step(self, progress: Progress) -> StepResult:
        """Train on one batch of the moment, or of the next one when it is done."""
        finished = self._advanced(progress)
        local = self._local(progress)
        result = super().step(local)
        self._phase_step += 1
        return dataclasses.replace(result, rate=local.rate, finished=finished)

    def _advanced(self, progress: Progress) -> MomentRecord | None:
        """Go to the next moment if this one is done, and say what it has become."""
        if self._begin is None:
            self._begin = progress.fraction * self._begin_step / max(progress.step, 1)
        end = self._plan.end(self.index, self._begin)
        if self.index + 1 == len(self._times) or progress.fraction < end - TOLERANCE:
            return None
        finished = self.moment()
        self._begin_step, self._begin = progress.step, progress.fraction
        self._begin_moment()
        return finished

    def _local(self, progress: Progress) -> Progress:
        """Where the phase of this moment stands."""
        begin = split = self._begin or 0.0
        end = self._plan.end(self.index, begin)
        if self._predicts(self.index):
            split += (end - begin) * self.config.motion_steps / self._plan.steps[self.index]
        if self.predicting and progress.fraction >= split - TOLERANCE:
            self._begin_fitting()
        low, high = (begin, split) if self.predicting else (split, end)
        fraction = (progress.fraction - low) / max(high - low, TOLERANCE)
        self._phase_fraction = min(max(fraction, 0.0), 1.0)
        rate = self.config.learning_rate_factor(self._phase_step, self._phase_fraction)
        if self.predicting:  # no warm-up: it has little to move
            rate = self.config.learning_rate_factor(10**9, self._phase_fraction)
        planned = max(round(progress.planned_steps * (high - low)), 1)
        return Progress(self._phase_step, self._phase_fraction, planned, rate)

    def _predicts(self, index: int) -> bool:
        """Whether a moment begins with the search for its motion."""
        config, key = self.config, key_moment(self.config, index) == index
        scratch = key and config.keyframe_restart == "scratch"
        wanted = config.predict_motion and config.motion_steps > 0
        return wanted and index > 0 and not scratch

    def _begin_moment(self) -> None:
        before = _orthonormal(self._moved().detach())
        self.index += 1
        self._before.copy_(before)
        self.motion.restart(self._middle())
        self._show_moment()
        for moments in self._moments:
            for moment in moments:
                moment.zero_()
        self._phase_step, self.predicting = 0, self._predicts(self.index)
        if not self.predicting:
            self._begin_fitting()
        self._freeze(self.predicting)

    def _show_moment(self) -> None:
        """Draw pixels of this moment; random numbers go on."""
        scene, state = self._scene.at_moment(self.index), self.sampler.state()
        self.sampler = PixelSampler(
            scene,
            scene.split("train"),
            budget_bytes=int(self.config.image_budget_gib * 2**30),
            random_background=self.config.background == "random",
            distances=self.config.depth_weight > 0,
            device=self.device,
            seed=self.config.seed,
        )
        self.sampler.set_state(state)

    def _freeze(self, frozen: bool) -> None:
        for parameter in self._parameters:
            parameter.tensor.requires_grad_(not frozen)

    def _begin_fitting(self) -> None:
        """The field learns again, from what it is, or anew where a key moment asks for it."""
        self.predicting, self._phase_step = False, 0
        self._freeze(False)
        if self.index > 0 and key_moment(self.config, self.index) == self.index:
            self._start_anew()
        elif self.index > 0:
            self._soften()
        scene, occupancy = self._scene.at_moment(self.index), self.renderer.occupancy
        cameras = scene.cameras[scene.split("train")].to(self.device)
        poses = self.world_motion().apply_poses(cameras.camera_to_world)
        occupancy.values.clamp_(min=0)
        occupancy.mark_unseen(cameras.with_poses(poses), scene.bounds)

    @torch.no_grad()
    def _soften(self) -> None:
        """Make the surface less sharp, but not less than a first one."""
        sharpness = self.field.log_sharpness
        softer = sharpness + math.log(self.config.later_sharpness) / SHARPNESS_RATE
        sharpness.copy_(torch.minimum(sharpness, softer.clamp(min=FIRST_SHARPNESS)))

    def _start_anew(self) -> None:
        fresh = build_field(self._scene, self.config, self.device)
        everything = self.config.keyframe_restart == "scratch"
        if everything:
            self._before.copy_(torch.eye(4))
            self.motion.restart(torch.full((3,), 0.5))
            self.renderer.occupancy.values.zero_()
        kept = () if everything else (self.field.table, self.field.color_weights)
        with torch.no_grad():
            new = [parameter.tensor for parameter in fresh.trained_parameters()]
            for k, (parameter, value) in enumerate(zip(self._parameters, new, strict=True)):
                if any(parameter.tensor is tensor for tensor in kept):
                    continue
                parameter.tensor.copy_(value)
                if self._averages:
                    self._averages[k].copy_(value)

    def _middle(self) -> Tensor:
        """(3,) mean of the places in grid space where the surface may be."""
        occupancy: OccupancyGrid = self.renderer.occupancy
        density = occupancy.values.clamp(min=0).reshape([occupancy.resolution] * 3)  # z, y, x
        place = (torch.arange(occupancy.resolution, device=density.device) + 0.5).to(density)
        place = place / occupancy.resolution
        total = density.sum()
        if not float(total) > 0:
            return torch.full((3,), 0.5, device=density.device)
        sums = [density.sum(dim=[n for n in range(3) if n != 2 - k]) @ place for k in range(3)]
        return torch.stack(sums) / total

    def _levels(self, step: int) -> int:
        levels = self.config.levels
        if self.predicting:
            return levels
        if self._is_key():
            return super()._levels(step)
        until = max(self.config.later_levels, TOLERANCE)
        share = min(self._phase_fraction / until, 1.0)
        return min(levels, math.ceil((FIRST_LEVELS + (1 - FIRST_LEVELS) * share) * levels) + 1)

    def _is_key(self) -> bool:
        return key_moment(self.config, self.index) == self.index

    def _seen_rays(self, batch: RayBatch) -> tuple[Tensor, Tensor]:
        if self.index == 0:
            return batch.origins, batch.directions
        motion = self._moved().float()
        if not self._predicts(self.index):
            motion = motion.detach()
        return moved_rays(motion, batch.origins, batch.directions)

    def _margin(self) -> float:
        if self._is_key():
            return OCCUPANCY_MARGIN
        wider = self.config.later_margin - OCCUPANCY_MARGIN
        return OCCUPANCY_MARGIN + wider * max(0.0, 1 - 2 * self._phase_fraction)

    def _update_occupancy(self, step: int) -> None:
        if not self.predicting:  # a frozen field stays where it is
            super()._update_occupancy(step)

    def _loss(self, out: SurfaceRays, batch: RayBatch, color: Tensor) -> Tensor:
        if self.predicting:
            return self._picture_loss(out, batch, color)
        return super()._loss(out, batch, color)

    def _optimize(self, step: int, rate: float) -> None:
        if self.predicting:
            self.motion.step(self.config.motion_rate * rate, self._skipped)
            return
        later = 1.0 if self._is_key() else self.config.later_rate
        super()._optimize(step, rate * later)
        if self._predicts(self.index):
            self.motion.step(FITTING_RATE * self.config.motion_rate * rate, self._skipped)

    def _numbers(self) -> dict[str, float]:
        return {**super()._numbers(), "moment": self.index}

    def moment(self) -> MomentRecord:
        """What playback needs of the moment in training: the mean of the weights, where it is,
        and where its surface may be. Copies."""
        config, occupancy = self.config, self.renderer.occupancy
        names = {id(value): f"field.{name}" for name, value in self.field.named_parameters()}
        tensors = [parameter.tensor for parameter in self._parameters]
        means = zip(tensors, self._averages or tensors, strict=True)
        found = {names[id(tensor)]: mean.detach().clone() for tensor, mean in means}
        found |= {
            "occupancy.bits": occupancy.bits.clone(),
            "occupancy.coarse": occupancy.coarse.clone(),
            "occupancy.unseen": pack_bits(occupancy.values < 0),
            "motion": self.world_motion().to_matrix(),
            "active_levels": torch.tensor(float(self.field.active_levels)),
        }
        whole = config.stored_moments == "whole"
        key = self.index if whole else key_moment(config, self.index)
        return MomentRecord(self.index, self._times[self.index], key, found)

    def state(self) -> dict[str, Tensor]:
        return super().state() | self.motion.state() | {"motion.before": self._before}

    def header(self) -> dict[str, Any]:
        config = self.config
        return super().header() | {
            "moment": self.index,
            "predicting": self.predicting,
            "motion_steps": self.motion.steps,
            "phase_step": self._phase_step,
            "begin": [self._begin_step, self._begin, config.steps, config.seconds],
        }

    def restore(self, tensors: dict[str, Tensor], header: dict[str, Any], path: Path) -> None:
        if not 0 <= header.get("moment", -1) < len(self._times):
            raise CheckpointError(f"{path}: is not of these {len(self._times)} moments")
        super().restore(tensors, header, path)
        self.index, self.predicting = header["moment"], header["predicting"]
        self.motion.steps, self._phase_step = header["motion_steps"], header["phase_step"]
        self._begin_step, begin, *ends = header["begin"]
        same = ends == [self.config.steps, self.config.seconds]
        self._begin = begin if same else None
        self._freeze(self.predicting)
        self._show_moment()


def _orthonormal(motion: Tensor) -> Tensor:
    """A rigid motion (4, 4) without the rounding of its rotation."""
    left, _, right = torch.linalg.svd(motion[:3, :3])
    cleaned = motion.clone()
    cleaned[:3, :3] = left @ right
    return cleaned


def _check_settings(scene: Scene, config: NeusConfig) -> None:
    """Refuse what has no meaning where things move."""
    refused = {
        "background": config.background == "model",
        "exposure": config.exposure,
        "pose_refinement": config.pose_refinement,
        "point_weight": config.point_weight > 0,
    }
    for name, wrong in refused.items():
        if wrong:
            raise ConfigError(
                f"{scene.source}: {name} = {getattr(config, name)!r} is for still scenes, and this "
                "one has times; leave it out, or add --set sequence=false for one surface"
            )


def _check_moments(scene: Scene, times: list[float]) -> None:
    """Refuse a moment that too few cameras saw, or whose cameras see no common place.

    Raises:
        DataError: says which, and how many did.
    """
    known = torch.zeros(0)
    for index, time in enumerate(times):
        part = scene.at_moment(index)
        train = part.splits.get("train", torch.zeros(0))
        if len(train) < 2:
            views = f"{len(train)} training view" + ("s" if len(train) != 1 else "")
            raise DataError(
                f"{scene.source}: moment {index} (time {time:.4g}) has {views}; a moving surface "
                "needs several at each moment: add what is missing, or --set sequence=false for "
                "one surface"
            )
        poses = part.cameras.camera_to_world[train]
        if not torch.equal(poses, known):  # cameras that stand still are looked at once
            check_views(part, train)
        known = poses
