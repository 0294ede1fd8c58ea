"""The GPUs of this machine, by the names that CUDA_VISIBLE_DEVICES takes, and how one says that it failed."""

import os
import sys
from pathlib import Path

VISIBLE = "CUDA_VISIBLE_DEVICES"
# What PyTorch says when a device, not a program, is at fault. Out of memory is not among them.
FAULTS = (
    "uncorrectable ECC",
    "unspecified launch failure",
    "illegal memory access",
    "hardware stack error",
    "misaligned address",
    "device-side assert",
    "GPU has fallen off",
    "CUDA error: unknown error",
    "launch timed out",
    "no CUDA-capable device",
    "invalid device ordinal",
)


def visible_devices(device: str) -> tuple[str, ...]:
    """Return the GPUs that this process may use; none with device "cpu", or where PyTorch has no CUDA."""
    if device == "cpu":
        return ()
    named = os.environ.get(VISIBLE)
    if named is not None:
        found = tuple(name for name in named.split(",") if name.strip())
        return found if found and _n_cuda() else ()
    return tuple(map(str, range(_n_cuda())))


def is_fault(error: BaseException) -> bool:
    """Return whether an error says that the GPU failed, after which its process cannot use it again."""
    return isinstance(error, RuntimeError) and any(fault in str(error) for fault in FAULTS)


def _n_cuda() -> int:
    """Return how many GPUs PyTorch sees. Loads it only where there may be one."""
    if "torch" not in sys.modules and not Path("/dev/nvidiactl").exists() and sys.platform == "linux":
        return 0
    import torch

    return torch.cuda.device_count()
