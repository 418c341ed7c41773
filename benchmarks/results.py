"""Result files: what was measured, when, on what machine, with which versions, by which command."""

import importlib.metadata
import json
import platform
import time
from pathlib import Path
from typing import Any

import torch

from pipeline.environment import environment

FOLDER = Path(__file__).parent / "results"


def write_result(name: str, result: dict[str, Any], *, gpu: bool = False, peers: tuple[str, ...] = ()) -> Path:
    """Writes `results/<name>_<device>.json`, with the versions of the peers' packages too, and says so."""
    device = torch.cuda.get_device_name() if gpu else processor()
    about = environment(f"{device}, {torch.get_num_threads()} threads")
    about["packages"] |= {peer: importlib.metadata.version(peer) for peer in peers}
    script, *flags = about["command"]
    flags = [Path(word).name if Path(word).is_absolute() or word.startswith("..") else word for word in flags]
    command = " ".join(["python -m", f"benchmarks.{Path(script).stem}", *flags])
    made = {
        "date": time.strftime("%Y-%m-%d"),
        "command": command,
        **{k: about[k] for k in ("device", "python", "packages")},
    }
    path = FOLDER / f"{name}_{'gpu' if gpu else 'cpu'}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(_json({"result": result, "made with": made}) + "\n", encoding="utf-8")
    print(path)
    return path


def _json(value, indent=""):
    """JSON with a line for each mapping's entry, and lists on one line."""
    if not isinstance(value, dict):
        return json.dumps(value, ensure_ascii=False)
    entries = [
        f"{indent} {json.dumps(name, ensure_ascii=False)}: {_json(v, indent + ' ')}" for name, v in value.items()
    ]
    return "{\n" + ",\n".join(entries) + f"\n{indent}}}"


def processor() -> str:
    """The processor's name, as the system says it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
