"""What a neural-graphics cluster beside a GPU would do with a scene of this engine: traces of real
renders, a cluster described in YAML, an analytic and a cycle-level model, energy and area, reports.
Names load on first use."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lumigraph.hardware.claims import Claim, published
    from lumigraph.hardware.cluster import ClusterSpec
    from lumigraph.hardware.cycle.model import CycleResult, simulate_cycles
    from lumigraph.hardware.recording import record
    from lumigraph.hardware.reports.reproduce import reproduce
    from lumigraph.hardware.simulation import FrameResult, simulate
    from lumigraph.hardware.sweeping import sweep
    from lumigraph.hardware.synthetic import synthetic_trace
    from lumigraph.hardware.trace import Trace
    from lumigraph.hardware.workloads import Encoding, Network, Workload, workload

_PLACES = {
    "claims": ("Claim", "published"),
    "cluster": ("ClusterSpec",),
    "cycle.model": ("CycleResult", "simulate_cycles"),
    "recording": ("record",),
    "reports.reproduce": ("reproduce",),
    "simulation": ("FrameResult", "simulate"),
    "sweeping": ("sweep",),
    "synthetic": ("synthetic_trace",),
    "trace": ("Trace",),
    "workloads": ("Encoding", "Network", "Workload", "workload"),
}
_MODULE_OF = {name: module for module, names in _PLACES.items() for name in names}

__all__ = [
    "Claim",
    "ClusterSpec",
    "CycleResult",
    "Encoding",
    "FrameResult",
    "Network",
    "Trace",
    "Workload",
    "published",
    "record",
    "reproduce",
    "simulate",
    "simulate_cycles",
    "sweep",
    "synthetic_trace",
    "workload",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
