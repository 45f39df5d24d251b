"""Settings of a training run by method and preset. Imports no torch, so commands can show help
fast.

A preset is a method (field + renderer + losses + schedule) at a size: `tiny` for two CPU cores,
`small` for a laptop GPU or a patient CPU, `full` for the settings of the method's paper.
"""

from __future__ import annotations

from typing import Any, Literal, overload

from lumigraph.core.errors import ConfigError

from .config_fitting import FittingConfig
from .config_gaussians import GAUSSIANS_PRESETS, GaussiansConfig
from .config_gaussians4d import GAUSSIANS4D_PRESETS, Gaussians4DConfig
from .config_image import IMAGE_PRESETS, ImageConfig
from .config_nerf import NERF_PRESETS, NerfConfig
from .config_neus import NEUS_PRESETS, NeusConfig
from .config_run import RunConfig, has_type, setting_types
from .config_sdf import SDF_PRESETS, SdfConfig
from .config_volume import VOLUME_PRESETS, VolumeConfig

__all__ = [
    "CONFIGS",
    "PRESETS",
    "FittingConfig",
    "Gaussians4DConfig",
    "GaussiansConfig",
    "ImageConfig",
    "NerfConfig",
    "NeusConfig",
    "RunConfig",
    "SdfConfig",
    "VolumeConfig",
    "config_from_dict",
    "methods_with",
    "train_config",
]

CONFIGS: dict[str, type[RunConfig]] = {
    "nerf": NerfConfig,
    "gaussians": GaussiansConfig,
    "gaussians4d": Gaussians4DConfig,
    "neus": NeusConfig,
    "image": ImageConfig,
    "sdf": SdfConfig,
    "volume": VolumeConfig,
}
"""Method -> the class of its settings."""

PRESETS: dict[tuple[str, str], dict[str, Any]] = {
    (method, size): values
    for method, sizes in (
        ("nerf", NERF_PRESETS),
        ("gaussians", GAUSSIANS_PRESETS),
        ("gaussians4d", GAUSSIANS4D_PRESETS),
        ("neus", NEUS_PRESETS),
        ("image", IMAGE_PRESETS),
        ("sdf", SDF_PRESETS),
        ("volume", VOLUME_PRESETS),
    )
    for size, values in sizes.items()
}
"""(method, size) -> what differs from the defaults of the method's class."""


@overload
def train_config(
    method: Literal["nerf"] = "nerf", preset: str = "tiny", **overrides: Any
) -> NerfConfig: ...
@overload
def train_config(
    method: Literal["gaussians"], preset: str = "tiny", **overrides: Any
) -> GaussiansConfig: ...
@overload
def train_config(
    method: Literal["gaussians4d"], preset: str = "tiny", **overrides: Any
) -> Gaussians4DConfig: ...
@overload
def train_config(method: Literal["neus"], preset: str = "tiny", **overrides: Any) -> NeusConfig: ...
@overload
def train_config(
    method: Literal["image"], preset: str = "tiny", **overrides: Any
) -> ImageConfig: ...
@overload
def train_config(method: Literal["sdf"], preset: str = "tiny", **overrides: Any) -> SdfConfig: ...
@overload
def train_config(
    method: Literal["volume"], preset: str = "tiny", **overrides: Any
) -> VolumeConfig: ...
@overload
def train_config(method: str, preset: str = "tiny", **overrides: Any) -> RunConfig: ...
def train_config(method: str = "nerf", preset: str = "tiny", **overrides: Any) -> RunConfig:
    """The preset's settings with some replaced, as the class of the method.

    Raises:
        ConfigError: unknown method, preset or setting, or a value out of range.

    Example:
        >>> train_config("gaussians", "tiny", seconds=60).max_gaussians
        60000
    """
    if (method, preset) not in PRESETS:
        known = ", ".join(f"{m}/{p}" for m, p in PRESETS)
        raise ConfigError(f"no preset {preset!r} for method {method!r}; there are {known}")
    values = {"method": method, "preset": preset, **PRESETS[method, preset], **overrides}
    return config_from_dict(values)


def config_from_dict(values: dict[str, Any], where: str = "settings") -> RunConfig:
    """Rebuild a saved configuration, as the class of its method.

    Args:
        where: names the source (a file) in messages.

    Raises:
        ConfigError: an unknown method, an unknown key or one of another method, a value of the
            wrong type, or one out of range.
    """
    method = values.get("method", "nerf")
    if not isinstance(method, str) or method not in CONFIGS:
        raise ConfigError(f"{where}: method = {method!r}: unknown, use one of {', '.join(CONFIGS)}")
    hints = setting_types(CONFIGS[method])
    unknown = sorted(set(values) - set(hints))
    if unknown:
        raise ConfigError(f"{where}: {_unknown(unknown[0], method)}")
    for name, value in values.items():
        if not has_type(value, hints[name]):
            raise ConfigError(f"{where}: {name} = {value!r} has the wrong type")
    return CONFIGS[method](**values)


def _unknown(name: str, method: str) -> str:
    others = methods_with(name)
    if not others:
        return f"unknown setting {name!r}; remove it or fix its name"
    return (
        f"{name!r} is a setting of method {' and '.join(others)}, not of {method}; remove it or "
        "choose that method"
    )


def methods_with(name: str) -> list[str]:
    """Methods that have a setting.

    >>> methods_with("strategy")
    ['gaussians', 'gaussians4d']
    """
    return [method for method, kind in CONFIGS.items() if name in setting_types(kind)]
