"""Result files: what was measured, when, on what machine, with which versions, by which command."""

import importlib.metadata
import json
import os
import platform
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from benchmarks.rounds import Ratio
from pipeline.environment import environment

FOLDER = Path(os.environ.get("BENCHMARK_RESULTS") or Path(__file__).parent / "results")


def write_result(
    name: str,
    result: dict[str, Any],
    *,
    ratios: Sequence[Ratio] = (),
    gpu: bool = False,
    peers: tuple[str, ...] = (),
) -> Path:
    """Writes `results/<name>_<device>.json`, with the versions of the peers' packages too, and says so.

    ratios: what `make bench` collects; they are printed. BENCHMARK_RESULTS names another folder.
    """
    path = FOLDER / f"{name}_{'gpu' if gpu else 'cpu'}.json"
    path.parent.mkdir(exist_ok=True)
    made = made_with(gpu=gpu, peers=peers)
    listed = {"ratios": [asdict(ratio) for ratio in ratios]} if ratios else {}
    for ratio in ratios:
        print(f"{ratio.name:62} {ratio.ratio:8.3f}  ({ratio.low:.3f} … {ratio.high:.3f}) of {ratio.reference}")
    path.write_text(to_json({"result": result, **listed, "made with": made}) + "\n", encoding="utf-8")
    print(path)
    return path


def made_with(*, gpu: bool, peers: tuple[str, ...] = ()) -> dict[str, Any]:
    """The date, the command, the commit, the device and the versions of a result."""
    device = torch.cuda.get_device_name() if gpu else processor()
    about = environment(f"{device}, {torch.get_num_threads()} threads")
    about["packages"] |= {peer: importlib.metadata.version(peer) for peer in peers}
    script, *flags = about["command"]
    flags = [Path(word).name if Path(word).is_absolute() or word.startswith("..") else word for word in flags]
    command = " ".join(["python -m", f"benchmarks.{Path(script).stem}", *flags])
    made = {"date": time.strftime("%Y-%m-%d"), "command": command}
    return made | {name: about[name] for name in ("commit", "device", "python", "packages")}


def to_json(value: Any, indent: str = "") -> str:
    """JSON with a line for each mapping's entry and each mapping in a list, and other lists on one line."""
    if isinstance(value, list) and value and all(isinstance(entry, dict) for entry in value):
        lines = [f"{indent} {json.dumps(entry, ensure_ascii=False)}" for entry in value]
        return "[\n" + ",\n".join(lines) + f"\n{indent}]"
    if not isinstance(value, dict):
        return json.dumps(value, ensure_ascii=False)
    entries = [
        f"{indent} {json.dumps(name, ensure_ascii=False)}: {to_json(v, indent + ' ')}" for name, v in value.items()
    ]
    return "{\n" + ",\n".join(entries) + f"\n{indent}}}"


def processor() -> str:
    """The processor's name, as the system says it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
