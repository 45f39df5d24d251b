"""What stands behind the Gaussians: a fixed color, another random one each step, one learned color
or a learned sky.

The sky is a color by direction alone, as if infinitely far: 0.5 + sum_k Y_k(d) c_k with harmonics
up to degree 4, kept in [0, 1].
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from lumigraph.core import Scene
from lumigraph.cuda.harmonics import harmonics_encode
from lumigraph.training.config_gaussians import SplatConfig
from lumigraph.training.evaluation import background_color

SKY_BANDS = 5
RATES = {"learned": 1e-2, "sky": 5e-3}  # Adam's step sizes


class Background(nn.Module):
    """Color behind a view, differentiable where it is learned.

    Args:
        kind: "black", "white", "random", "learned" or "sky".
        shown: (3,) color of frames, whatever stood behind in training; None shows what is trained
            and, for "random", black.
        seed: of the random colors.
    """

    trained: Tensor
    shown: Tensor | None

    def __init__(self, kind: str, *, shown: Tensor | None = None, seed: int = 0) -> None:
        super().__init__()
        self.kind = kind
        shade = torch.ones(3) if kind == "white" else torch.zeros(3)
        self.register_buffer("trained", shade, persistent=False)
        self.register_buffer("shown", shown, persistent=False)
        self._generator = torch.Generator().manual_seed(seed)
        size = {"learned": (1, 3), "sky": (1, SKY_BANDS**2, 3)}.get(kind)
        # one row, as tables of images have one for each
        self.table = None if size is None else nn.Parameter(torch.zeros(size))

    @classmethod
    def of_scene(cls, scene: Scene, config: SplatConfig) -> Background:
        """What a configuration asks for; "auto" is "random" for images with alpha, else "learned".
        Images with alpha are shown over the color that they are judged over."""
        kind = config.background
        if kind == "auto":
            kind = "random" if scene.has_alpha else "learned"
        shown = background_color(scene) if scene.has_alpha else None
        return cls(kind, shown=shown, seed=config.seed + 3)

    @property
    def rate(self) -> float:
        """Learning rate of the table."""
        return RATES[self.kind]

    def draw(self, directions: Tensor | None = None) -> Tensor:
        """Color of one training step: (3,), or (N, 3) of the sky in unit directions (N, 3)."""
        if self.kind == "random":
            return torch.rand(3, generator=self._generator).to(self.trained.device)
        if self.table is None:
            return self.trained
        if self.kind == "learned":
            return (0.5 + self.table[0]).clamp(0, 1)
        assert directions is not None
        values = harmonics_encode(directions, SKY_BANDS)
        return (0.5 + values @ self.table[0]).clamp(0, 1)

    @torch.no_grad()
    def color(self, directions: Tensor | None = None) -> Tensor:
        """Color of frames: (3,), or (N, 3) of the sky in unit directions (N, 3)."""
        if self.shown is not None:
            return self.shown
        return self.trained if self.kind == "random" else self.draw(directions)

    @property
    def needs_directions(self) -> bool:
        """Whether training draws a color for each direction."""
        return self.kind == "sky"

    def for_frames(self) -> Tensor | Callable[[Tensor], Tensor]:
        """What `SplatRenderer` takes."""
        return self.color if self.shown is None and self.needs_directions else self.color()

    def random_state(self) -> Tensor:
        return self._generator.get_state()

    def set_random_state(self, state: Tensor) -> None:
        self._generator.set_state(state.cpu())
