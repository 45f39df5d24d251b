"""A thousand broken and absurd scenes and cameras: a finite picture or one clear error each, see
`benchmarks/splat_fuzz.py`, which a GPU also runs under compute-sanitizer."""

import importlib.util
import os
import sys
import time
from pathlib import Path

import pytest
import torch

BACKENDS = ["cpu", "emu", pytest.param("cuda", marks=pytest.mark.gpu)]
COUNT = int(os.environ.get("LUMIGRAPH_FUZZ_COUNT", "1000"))


@pytest.fixture(scope="module")
def fuzz():
    path = Path(__file__).parents[3] / "benchmarks" / "splat_fuzz.py"
    spec = importlib.util.spec_from_file_location("splat_fuzz", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_thousand_cases(fuzz, backend: str) -> None:
    fuzz.run(len(fuzz.CONFIGURATIONS), device_of(backend))  # compiles
    begin = time.perf_counter()
    outcomes, wrong = fuzz.run(COUNT, device_of(backend))
    assert not wrong, "\n".join(wrong[:20])
    assert outcomes["picture"] > 0.9 * COUNT and outcomes["refused"] > 0.02 * COUNT
    assert time.perf_counter() - begin < 60


def device_of(backend: str) -> str:
    return "cuda" if backend == "cuda" else "cpu"


def test_the_twins_survive_too(fuzz) -> None:
    from lumigraph.cuda.dispatch import backend_override

    with backend_override("torch"):
        outcomes, wrong = fuzz.run(150, first=COUNT)
    assert not wrong, "\n".join(wrong[:20])
    assert outcomes["picture"] > 100


def test_cases_are_as_broken_as_they_should_be(fuzz) -> None:
    """What the thousand hold, so that a change of the dice does not make them tame."""
    cases = [fuzz.make_case(seed) for seed in range(1000)]
    broken = sum(bool(case.broken.any()) for case in cases)
    zero = sum(0 in (case.camera["width"], case.camera["height"]) for case in cases)
    counts = [len(case.broken) for case in cases]
    focal = [case.camera["intrinsics"][0] for case in cases]
    assert broken > 400 and zero > 15 and counts.count(0) > 80 and counts.count(1) > 80
    assert max(focal) > 1e30 and min(focal) < 1e-30
    assert sum(not bool(case.pose.isfinite().all()) for case in cases) > 10
    for name in fuzz.LEAVES:
        bad = [t for t in (case.gaussians[name] for case in cases) if not bool(t.isfinite().all())]
        assert len(bad) > 100, name
    again = fuzz.make_case(17)
    assert torch.equal(
        again.gaussians["means"].nan_to_num(), cases[17].gaussians["means"].nan_to_num()
    )
