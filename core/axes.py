"""Names of the six directions along the axes; without torch, for commands."""

from __future__ import annotations

from typing import Literal, get_args

AxisName = Literal["x", "-x", "y", "-y", "z", "-z"]
AXIS_NAMES: tuple[AxisName, ...] = get_args(AxisName)
