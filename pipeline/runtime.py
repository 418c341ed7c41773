"""What a run computes with: which processor, how precisely, and as which of several processes."""

import os
from dataclasses import dataclass

import cv2
import torch

from pipeline.allocator import keep_freed_memory
from pipeline.errors import UserError
from pipeline.progress import print_line
from pipeline.ranks import ALONE, Ranks, current_ranks


@dataclass(frozen=True)
class Runtime:
    """The device, and the precision of convolutions and matrix products on it: bf16, fp16 or fp32.

    ranks: which of the processes that compute together this one is. The main one prints.
    """

    device: torch.device
    precision: str
    ranks: Ranks = ALONE

    @classmethod
    def choose(cls, *, gpu: bool, precision: str = "auto") -> "Runtime":
        """The GPU if it is asked for, else the CPU; says so when a GPU stands idle. Of several processes on a machine
        each takes a GPU of its own.

        Raises UserError where a GPU is asked for and none is usable.
        """
        ranks = current_ranks()
        device = choose_device(gpu=gpu, ranks=ranks)
        runtime = cls(device, choose_precision(precision, device), ranks)
        if not gpu and torch.cuda.is_available():
            runtime.print(f"on the CPU; {torch.cuda.get_device_name()} stands idle: --gpu uses it")
        return runtime

    def autocast(self) -> torch.autocast:
        """The context in which a network computes in this precision."""
        types = {"bf16": torch.bfloat16, "fp16": torch.float16}
        return torch.autocast(self.device.type, dtype=types.get(self.precision), enabled=self.precision in types)

    @property
    def is_main(self) -> bool:
        return self.ranks.is_main

    def print(self, line: str):
        """Prints a line at once, above any bar, on the main rank only."""
        if self.is_main:
            print_line(line)

    def __str__(self) -> str:
        gpu = torch.cuda.get_device_name() if self.device.type == "cuda" else None
        count = torch.get_num_threads()
        device = gpu or f"CPU, {count} thread{'s' if count > 1 else ''}"
        return f"{device}, each of {self.ranks}" if self.ranks.num_ranks > 1 else device


def choose_device(*, gpu: bool, ranks: Ranks = ALONE) -> torch.device:
    """The GPU if it is asked for, else the CPU.

    OpenCV is left one thread: its others take the cores from torch, and an image is too small to share.
    Raises UserError, with what was found, when a GPU is asked for and none is usable, or there are fewer GPUs than
    ranks on this machine.
    """
    cv2.setNumThreads(1)
    if not gpu:
        keep_freed_memory()
        return torch.device("cpu")
    if not torch.cuda.is_available():
        found = f"torch {torch.__version__} for CUDA {torch.version.cuda} finds {torch.cuda.device_count()} GPUs"
        if torch.version.cuda is None and torch.version.hip is None:
            found = f"torch {torch.__version__} is built without CUDA"
        raise UserError(
            f"--gpu: no usable GPU: {found}; mend the driver or the install (see nvidia-smi), or leave out --gpu"
        )
    torch.backends.cudnn.allow_tf32 = False  # so that float32 is not rounded to TF32, torch's default
    if ranks.num_ranks == 1:
        return torch.device("cuda")
    if ranks.num_local > torch.cuda.device_count():
        raise UserError(
            f"--gpu: {ranks.num_local} processes were started on a machine with {torch.cuda.device_count()} GPUs; give "
            f"torchrun --nproc-per-node {torch.cuda.device_count()}"
        )
    torch.cuda.set_device(ranks.local_rank)
    return torch.device("cuda", ranks.local_rank)


def compute_deterministically(device: torch.device):
    """Lets a GPU give equal results for equal input from now on, at some cost in speed; a CPU does so anyway.

    What torch has no deterministic algorithm for is computed all the same, and torch warns with its name.
    """
    if device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it at the first product
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.backends.cudnn.benchmark = False


def choose_precision(wanted: str, device: torch.device) -> str:
    """`auto` as bf16 where the processor computes in it, else fp16 on a GPU and fp32 on a CPU."""
    if wanted != "auto":
        return wanted
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    found = torch.cpu.get_capabilities()
    return "bf16" if found.get("avx512_bf16") or found.get("amx_bf16") or found.get("bf16") else "fp32"
