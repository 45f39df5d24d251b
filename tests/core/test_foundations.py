"""Shape checks, errors, colour, devices, and the examples in the docstrings of core."""

import doctest
import importlib
import pkgutil

import pytest
import torch

import lumigraph.core
from lumigraph.core import InputError, MissingExtraError, check_shapes, choose_device, require
from lumigraph.core.color import COLORMAPS, colorize, linear_to_srgb, psnr, srgb_to_linear
from lumigraph.core.errors import BackendError, LumigraphError

MODULES = [module.name for module in pkgutil.iter_modules(lumigraph.core.__path__)]


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples(name: str) -> None:
    module = importlib.import_module(f"lumigraph.core.{name}")
    result = doctest.testmod(module, extraglobs={"torch": torch})
    assert result.failed == 0


def test_every_public_name_exists() -> None:
    assert lumigraph.core.__all__ == sorted(set(lumigraph.core.__all__))
    for name in lumigraph.core.__all__:
        assert hasattr(lumigraph.core, name)


@pytest.mark.parametrize(
    ("checks", "options", "message"),
    [
        ([("x", torch.zeros(2), "N 3")], {}, r"x must have shape \(N, 3\); got \(2,\)"),
        ([("x", torch.zeros(2), "3")], {}, r"x must have shape \(3,\); got \(2,\)"),
        ([("x", torch.zeros(4, 3), "N N")], {}, r"x must have shape \(N, N\); got \(4, 3\)"),
        (
            [("x", torch.zeros(2), "N"), ("t", torch.zeros(3), "N")],
            {},
            r"t must have shape \(N,\) with N = 2; got \(3,\)",
        ),
        ([("x", torch.zeros(2), "... 3")], {}, r"x must have shape \(\.\.\., 3\); got \(2,\)"),
        ([("x", [1, 2], "N")], {}, "x must be a torch tensor; got list"),
        ([("x", torch.zeros(2), "N")], {"dtype": torch.int64}, "x must be int64; got float32"),
        (
            [("x", torch.zeros(2), "N")],
            {"dtype": (torch.float16, torch.float64)},
            "x must be float16 or float64; got float32",
        ),
        (
            [("x", torch.zeros(2), "N"), ("y", torch.zeros(2, device="meta"), "N")],
            {},
            "y must be on device cpu; got meta",
        ),
        ([("x", torch.zeros(2), "N")], {"device": "cuda"}, "x must be on device cuda; got cpu"),
    ],
)
def test_shape_messages(checks: list, options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_shapes(*checks, **options)


def test_shapes_that_fit() -> None:
    sizes = check_shapes(
        ("a", torch.zeros(2, 5, 3), "... 3"), ("b", None, "N"), ("c", torch.zeros(4, 7), "M _")
    )
    assert sizes == {"M": 4}


def test_require_names_the_extra() -> None:
    with pytest.raises(MissingExtraError, match=r"pip install 'lumigraph\[viewer\]'"):
        require("a_module_that_is_not_there", extra="viewer")
    assert issubclass(MissingExtraError, ValueError) and issubclass(InputError, LumigraphError)


def test_srgb_curve() -> None:
    values = torch.linspace(0, 1, 1001, dtype=torch.float64)
    torch.testing.assert_close(linear_to_srgb(srgb_to_linear(values)), values, atol=1e-6, rtol=0)
    assert float(srgb_to_linear(torch.tensor(0.5))) == pytest.approx(0.21404, abs=1e-5)
    for function in (srgb_to_linear, linear_to_srgb):
        zero = torch.tensor([0.0, 0.02, 0.9], requires_grad=True)
        function(zero).sum().backward()
        assert zero.grad is not None
        assert bool(torch.isfinite(zero.grad).all())


def test_psnr() -> None:
    assert psnr(torch.tensor(0.01)) == pytest.approx(20.0)
    assert psnr(0.0) == float("inf")


@pytest.mark.parametrize("name", COLORMAPS)
def test_colormaps(name: str) -> None:
    values = torch.tensor([[0.0, 1.0], [float("nan"), -float("inf")]])
    colors = colorize(values, colormap=name)
    assert colors.shape == (2, 2, 3)
    torch.testing.assert_close(colors[0, 1], torch.tensor(COLORMAPS[name][-1]))
    torch.testing.assert_close(colors[1, 0], torch.tensor(COLORMAPS[name][0]))


def test_unknown_colormap() -> None:
    with pytest.raises(InputError, match="colormap must be one of spectrum, heat, gray"):
        colorize(torch.zeros(1), colormap="jet")


@pytest.mark.parametrize("name", ["graphics", "meta", "cpu:x", "mps"])
def test_unknown_device(name: str) -> None:
    with pytest.raises(BackendError, match="device must be auto, cpu, cuda or cuda:N"):
        choose_device(name)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_cuda_wish_without_a_gpu_says_why() -> None:
    assert choose_device("auto").type == "cpu"
    with pytest.raises(
        BackendError, match=r"device 'cuda' cannot be used: torch .*choose auto or cpu"
    ):
        choose_device("cuda")


@pytest.mark.gpu
def test_cuda_wish_with_a_gpu() -> None:
    assert choose_device("auto").type == "cuda"
    with pytest.raises(BackendError, match="GPUs, numbered from 0"):
        choose_device("cuda:99")
