"""Lesson 2. The hash grid as an operation: learn a picture as a function of (x, y).

Learnt here: operations are plain functions on tensors with gradients. `grid_encode` turns
positions into features that it looks up in a table; `mlp` is a small network. Both run as C++ on
a CPU and as CUDA on a GPU; `LUMIGRAPH_BACKEND=torch` takes the plain torch twins instead.

    python examples/lessons/02_hash_grid_operation.py [--steps 300] [--out grid.png]
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path

import torch

from lumigraph.cuda.ops import GridLayout, grid_encode, mlp, mlp_weight_count
from lumigraph.training.pictures import write_image

SIDE = 128


def truth(x: torch.Tensor) -> torch.Tensor:
    """(M, 2) in [0, 1] -> (M, 3): rings with a checker pattern, in closed form."""
    offset = x - 0.5
    rings = 0.5 + 0.5 * torch.sin(60 * offset.norm(dim=1))
    checks = ((x * 8).floor().sum(dim=1) % 2).float()
    return torch.stack([rings, 0.3 + 0.4 * checks, 1 - rings * x[:, 0]], dim=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--out", type=Path, default=Path("grid.png"))
    parser.add_argument("--quick", action="store_true", help="five steps: only to see it work")
    arguments = parser.parse_args()
    steps = 5 if arguments.quick else arguments.steps
    torch.manual_seed(0)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

    # 8 levels from 8 to 128 vertices an axis; levels that do not fit 2^12 entries are hashed
    layout = GridLayout.from_resolutions(8, 128, levels=8, dimensions=2, log2_table_size=12)
    widths = (layout.output_width, 32, 3)
    table = (torch.rand(layout.entries, layout.features, device=device) - 0.5) * 2e-2
    weights = torch.randn(mlp_weight_count(widths), device=device) * 0.2
    parameters = [table.requires_grad_(), weights.requires_grad_()]
    optimizer = torch.optim.Adam(parameters, lr=1e-2)

    def picture(x: torch.Tensor) -> torch.Tensor:
        features = grid_encode(x, table, layout)
        return mlp(features, weights, widths, output_activation="sigmoid")

    begin = time.perf_counter()
    for step in range(steps):
        x = torch.rand(2**13, 2, device=device)
        loss = torch.nn.functional.mse_loss(picture(x), truth(x))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 50 == 0 or step == steps - 1:
            print(f"step {step}: PSNR {-10 * math.log10(loss.item()):.1f} dB")
    print(f"{steps} steps in {time.perf_counter() - begin:.1f} s on {device.type}")

    centres = (torch.arange(SIDE, device=device) + 0.5) / SIDE
    x = torch.stack(torch.meshgrid(centres, centres, indexing="xy"), dim=-1).reshape(-1, 2)
    with torch.no_grad():
        both = [values.reshape(SIDE, SIDE, 3) for values in (truth(x), picture(x))]
    write_image(arguments.out, torch.cat(both, dim=1))
    print(f"{arguments.out}: truth | learnt")


if __name__ == "__main__":
    main()
