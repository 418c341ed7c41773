"""A network run by ONNX Runtime on the CPU, for `predict.py --backend onnx`; and the export to ONNX, which
`tools.export` shares.

The exported network is kept in the cache under a key of the checkpoint. It computes in float32 with as many threads as
torch has.
"""

import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

import torch

from models import LandmarkNet, Prediction
from pipeline.data.kept import kept_bytes, key_of
from pipeline.errors import UserError

PACKAGES = ("onnx", "onnxscript", "onnxruntime")
INSTALL = f"pip install {' '.join(PACKAGES)}"
MAX_DIFFERENCE = 0.02  # pixels of the image
BATCHES = (1, 2, 16)

Points = Callable[[torch.Tensor], torch.Tensor]


class Predictor(Protocol):
    """What predicts (B, 3, size, size) uint8 images: a `LandmarkNet`, or an `OnnxNetwork` of one."""

    training: bool

    @property
    def mean_shape(self) -> torch.Tensor: ...

    @property
    def shift(self) -> torch.Tensor: ...

    def predict(self, images: torch.Tensor, /) -> Prediction: ...


class OnnxNetwork:
    """Predicts what the network does whose ONNX file is `content`."""

    training = False

    def __init__(self, content: bytes, mean_shape: torch.Tensor, shift: torch.Tensor):
        self.mean_shape, self.shift = mean_shape, shift
        self.session = open_session(content)

    def predict(self, images: torch.Tensor) -> Prediction:
        points, *scale = (torch.from_numpy(array) for array in self.session.run(None, {"images": images.numpy()}))
        return Prediction(points, scale[0] if scale else None)


class _Outputs(torch.nn.Module):
    """A network's output as a tuple of tensors, which ONNX supports: its points, and their scale if it has one.

    A head's distributions are left out, since they are for training only.
    """

    def __init__(self, network: LandmarkNet):
        super().__init__()
        self.network = network

    def forward(self, images):
        predicted = self.network.predict(images)
        return (predicted.points,) if predicted.log_scale is None else (predicted.points, predicted.log_scale)


def check_installed():
    """Raises UserError, with what to install, if a package is missing that exporting or computing needs."""
    if missing := [name for name in PACKAGES if find_spec(name) is None]:
        raise UserError(f"--backend onnx needs {', '.join(missing)}: {INSTALL}; or leave out --backend")


def through_onnx(network: LandmarkNet, *, size: int, cache: Path, key: tuple[str, ...]) -> OnnxNetwork:
    """The network as ONNX Runtime computes it, exported if the cache does not have it yet.

    key: what tells the network from others. Raises UserError if torch cannot export it, or if ONNX Runtime does not
    compute what torch does.
    """
    path = cache / f"onnx-{key_of(torch.__version__, str(size), *key)}.sealed"
    content = kept_bytes(path, lambda: _exported(network, size))
    return OnnxNetwork(content, network.mean_shape.cpu(), network.shift.detach().cpu())


def _exported(network, size):
    examples = torch.randint(0, 256, (max(BATCHES), 3, size, size), dtype=torch.uint8, generator=torch.Generator())
    with TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch's own tracing, about what is verified here
        path = Path(folder) / "network.onnx"
        try:
            export_onnx(_Outputs(network).eval(), examples[:2], path, has_scale=_has_scale(network, examples[:1]))
        except torch.onnx.OnnxExporterError as error:
            reason = str(error).strip().splitlines()[0]
            raise UserError(f"--backend onnx: torch cannot export this network: {reason}; leave it out") from error
        content = path.read_bytes()
    found = OnnxNetwork(content, network.mean_shape, network.shift)
    worst = worst_difference(
        lambda images: found.predict(images).points, lambda images: network.predict(images).points, examples
    )
    if not worst < MAX_DIFFERENCE:
        raise UserError(f"--backend onnx: the points would be {worst:.3f} px off those of torch; leave it out")
    return content


@torch.no_grad()
def _has_scale(network, images):
    return network.predict(images).log_scale is not None


def export_onnx(module: torch.nn.Module, example: torch.Tensor, path: Path, *, has_scale: bool = False):
    """Writes an ONNX file of a module that gives points, and their scale if it has one, for any number of images."""
    torch.onnx.export(
        module,
        (example,),
        path,
        input_names=["images"],
        output_names=["points", "log_scale"] if has_scale else ["points"],
        dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=4096)},),
        dynamo=True,
        external_data=False,
        verbose=False,
    )


def open_session(file: Path | bytes) -> Any:
    """A session of ONNX Runtime on the CPU, with torch's number of threads."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    return onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])


@torch.no_grad()
def worst_difference(found: Points, network: Points, photos: torch.Tensor) -> float:
    """The largest difference from the network's own points, in pixels of the image, for batches of several sizes.

    It is infinite if the number of points differs, or they are not numbers.
    """
    worst = 0.0
    for count in {*BATCHES[:2], len(photos)}:
        points, own = found(photos[:count].contiguous()), network(photos[:count])
        if points.shape != own.shape or not (difference := (points - own).abs().max()).isfinite():
            return float("inf")
        worst = max(worst, float(difference))
    return worst
