"""The radiance field of `grid_field.py` with encoding and networks of tiny-cuda-nn, where a user
has that package: the same shapes, levels and half-cell offset; only the back end differs.

Source: the options are those of NVlabs/tiny-cuda-nn, DOCUMENTATION.md.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from lumigraph.core.errors import BackendError, ConfigError, MissingExtraError
from lumigraph.cuda.grid import GridLayout
from lumigraph.cuda.harmonics import harmonics_encode

from .grid_field import GEOMETRY_WIDTH, HARMONICS_DEGREE, field_extent
from .protocols import TrainedParameter

FUSED_WIDTHS = (16, 32, 64, 128)
LARGEST_LOG_DENSITY = 15.0


def tinycudann_library(device: torch.device) -> ModuleType:
    """The package `tinycudann`.

    Raises:
        MissingExtraError: it is not installed.
        BackendError: the device is not a GPU, or the package does not work on this machine.
    """
    if device.type != "cuda":
        raise BackendError(
            f"encoder tinycudann needs an NVIDIA GPU and the device is {device.type}; "
            "use --device cuda, or --encoder lumigraph"
        )
    try:
        return importlib.import_module("tinycudann")
    except ModuleNotFoundError as error:
        if error.name != "tinycudann":
            raise _broken(error) from error
        raise MissingExtraError(
            "tinycudann is not installed and no extra brings it; build it from the repository "
            "NVlabs/tiny-cuda-nn, or use --encoder lumigraph"
        ) from error
    except (ImportError, OSError, NameError, RuntimeError) as error:
        raise _broken(error) from error


def _broken(error: Exception) -> BackendError:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return BackendError(
        f"tinycudann cannot be used ({reason}); build it again, or use --encoder lumigraph"
    )


class TinyCudaField(nn.Module):
    """A volume field on tiny-cuda-nn.

    Args:
        bounds: (2, 3) corners of the region of interest, a cube, in scene units.
        layout: levels of the encoding, in three dimensions.
        device: a GPU.
        Others as `GridField`.

    Raises:
        ConfigError: an impossible shape, or one that tiny-cuda-nn's fused networks do not have.
        BackendError, MissingExtraError: see `tinycudann_library`.
    """

    bounds: Tensor

    def __init__(
        self,
        bounds: Tensor,
        layout: GridLayout,
        *,
        device: torch.device,
        aabb_scale: int = 1,
        hidden_width: int = 64,
        density_layers: int = 1,
        color_layers: int = 2,
        seed: int = 0,
    ) -> None:
        super().__init__()
        corners, self.cascades = field_extent(bounds, layout, aabb_scale)
        if hidden_width not in FUSED_WIDTHS:
            raise ConfigError(
                f"hidden_width = {hidden_width}: networks of tinycudann have 16, 32, 64 or 128 "
                "units; choose one of these, or --encoder lumigraph"
            )
        library = tinycudann_library(device)
        self.register_buffer("bounds", corners)
        self.layout = layout
        density = network_options(hidden_width, density_layers, "None")
        color = network_options(hidden_width, color_layers, "Sigmoid")
        color_inputs = GEOMETRY_WIDTH + HARMONICS_DEGREE**2
        # apart, not as one module: the table and the weights have rules of their own in training
        self.encoding = library.Encoding(3, grid_options(layout), seed=seed)
        width = layout.output_width
        self.density_network = library.Network(width, GEOMETRY_WIDTH, density, seed=seed + 1)
        self.color_network = library.Network(color_inputs, 3, color, seed=seed + 2)

    def geometry(self, positions: Tensor) -> Tensor:
        """(M, 3) in grid space -> (M, 16): log of the density, and features for the color."""
        if not len(positions):  # the package knows no empty batch; stays part of the graph
            return (positions.sum(1, keepdim=True) + self.encoding.params[:1]).expand(
                0, GEOMETRY_WIDTH
            )
        unit = (positions - 0.5) / 2 ** (self.cascades - 1) + 0.5
        features: Tensor = self.density_network(self.encoding(unit.clamp(0, 1)))
        return features.float()

    def density(self, positions: Tensor) -> Tensor:
        return torch.exp(self.geometry(positions)[:, 0].clamp(max=LARGEST_LOG_DENSITY))

    def query(self, positions: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
        geometry = self.geometry(positions)
        density = torch.exp(geometry[:, 0].clamp(max=LARGEST_LOG_DENSITY))
        if not len(positions):
            return density, geometry[:, :3]
        harmonics = harmonics_encode(directions, HARMONICS_DEGREE)
        color: Tensor = self.color_network(torch.cat([geometry, harmonics], dim=1))
        return density, color.float()

    def trained_parameters(self) -> list[TrainedParameter]:
        return [
            TrainedParameter(self.encoding.params, is_network=False),
            TrainedParameter(self.density_network.params, is_network=True),
            TrainedParameter(self.color_network.params, is_network=True),
        ]

    def networks(self) -> None:
        return None


def grid_options(layout: GridLayout) -> dict[str, Any]:
    """The encoding of a layout in the words of tiny-cuda-nn."""
    return {
        "otype": "Grid",
        "type": "Dense" if layout.dense else "Hash",
        "n_levels": layout.levels,
        "n_features_per_level": layout.features,
        "log2_hashmap_size": layout.log2_table_size,
        "base_resolution": layout.base_resolution,
        "per_level_scale": layout.growth,
        "interpolation": "Smoothstep" if layout.smooth else "Linear",
    }


def network_options(width: int, layers: int, output_activation: str) -> dict[str, Any]:
    return {
        "otype": "FullyFusedMLP",
        "activation": "ReLU",
        "output_activation": output_activation,
        "n_neurons": width,
        "n_hidden_layers": layers,
    }
