"""The process of one part: `python -m pgti_bench.gpu_check PART RESULTS SCRATCH [--rehearse]`."""

import os
import sys
from pathlib import Path

import torch

from pgti_bench.gpu_check.parts import PARTS
from pgti_bench.gpu_check.setting import Setting


def main(arguments: list[str]) -> None:
    """Run the part."""
    name, results, scratch, *rest = arguments
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # the machine may be offline
    device = torch.device("cpu") if rest == ["--rehearse"] else torch.device("cuda", 0)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    else:
        torch.set_num_threads(1)  # a small step takes longer on more
        os.environ["OMP_NUM_THREADS"] = "1"  # also in commands that the part starts
    PARTS[name].load()(
        Setting(part=name, device=device, results=Path(results), scratch=Path(scratch))
    )


if __name__ == "__main__":
    main(sys.argv[1:])
