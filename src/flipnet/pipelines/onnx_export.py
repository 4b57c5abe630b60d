"""The few-step restorer as one ONNX graph, which onnxruntime runs without torch. See docs/onnx.md.

Source: our choice; FLIPNET's authors released no code. LoRA is merged first, the steps are unrolled, φ is fixed.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from diffusers import DDIMScheduler
from torch import Tensor, nn

import flipnet
from flipnet.pipelines.pipeline import FlipnetPipeline
from flipnet.types import FlipnetError, Mode

if TYPE_CHECKING:
    import onnx

INPUT, NOISE, OUTPUT = "face", "noise", "restored"
OPSET = 18
TOLERANCE = 2.0
"""Most that the graph may differ from torch in float32, in 8-bit levels."""

LARGEST_BYTES = 2**31 - 1
"""Most that one protobuf message, and so an ONNX file without external data, can hold."""

_SMALLEST_HALVED = 1024  # elements; halving smaller tensors saves nothing
_LEVELS = 127.5  # 8-bit levels per unit of [-1, 1]


@dataclass(frozen=True)
class Exported:
    """An ONNX model in memory.

    Attributes:
        content: the file's bytes.
        difference: largest difference from torch in float32 on the faces it was checked with, 8-bit levels.
    """

    content: bytes
    difference: float


class RestorationGraph(nn.Module):
    """The whole way of a face through the restoration mode, with a fixed number of steps and a fixed φ.

    Args:
        pipeline: with a restoration mode and a `DDIMScheduler`; its LoRA is merged, its precision becomes float32.
        phi: boosting weight φ >= 0.
        steps: denoising steps; None takes the mode's own number.

    Raises:
        FlipnetError: no such mode, another scheduler, a decoder that draws noise, or a number out of range.
    """

    def __init__(self, pipeline: FlipnetPipeline, *, phi: float = 1.0, steps: int | None = None) -> None:
        super().__init__()
        mode = Mode.RESTORATION.value
        pipeline.network.activate(mode)
        pipeline.network.fuse()
        pipeline.precision = "no"
        decoder = pipeline.decoders.get(mode)
        self.phi = phi
        self.steps = pipeline.network.default_steps[mode] if steps is None else steps
        if self.phi < 0 or self.steps < 1:
            raise FlipnetError(f"need phi >= 0 and at least one step, got {phi} and {self.steps}.")
        if not isinstance(pipeline.scheduler, DDIMScheduler):
            raise FlipnetError(
                f"a {type(pipeline.scheduler).__name__} cannot be exported, only a DDIMScheduler is."
            )
        if decoder is not None and decoder.noise_strengths:
            raise FlipnetError("a decoder that draws noise of its own cannot be exported.")
        self.pipeline = pipeline
        # The exporter looks for weights in registered modules only.
        self.parts = nn.ModuleList([pipeline.network, pipeline.vae] + ([decoder] if decoder else []))
        self.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
        self.scheduler.set_timesteps(self.steps)
        # Numbers instead of tensors, so that the schedule's choices are made now and not in the graph.
        self.timesteps: list[int] = self.scheduler.timesteps.tolist()

    @property
    def noise_shape(self) -> tuple[int, int, int]:
        """Shape (L, h, w) of one face's noise."""
        side = self.pipeline.unet.config.sample_size
        return self.pipeline.network.latent_channels, side, side

    def forward(self, face: Tensor, noise: Tensor) -> Tensor:
        """Map faces (B, 3, S, S) in [-1, 1] and a `restoration_start` (B, L, h, w) to restored faces in [-1, 1]."""
        network = self.pipeline.network
        latents, features = self.pipeline.encode(face)
        condition = network.condition(latents, network.embed(face), phi=self.phi)
        denoised = noise * self.scheduler.init_noise_sigma
        for timestep in self.timesteps:
            prediction = network(denoised, timestep, condition)
            denoised = self.scheduler.step(prediction, timestep, denoised).prev_sample
        return self.pipeline.decode(denoised, features, phi=self.phi).clamp(-1, 1)


def export_onnx(
    graph: RestorationGraph,
    faces: Tensor,
    *,
    model_name: str,
    licence: str,
    dtype: torch.dtype = torch.float16,
) -> Exported:
    """Export a graph and check it against torch.

    Args:
        graph: what to export.
        faces: (B, 3, S, S) in [-1, 1] to check it with, one at a time.
        model_name, licence: for the file's metadata.
        dtype: float16, bfloat16 or float32: how weights are stored. They are computed with in float32.

    Returns:
        The model: inputs "face" and "noise", output "restored", any number of faces at once, opset 18; without
        external data.

    Raises:
        FlipnetError: the model is 2 GB or larger, a weight does not fit `dtype`, or the graph differs from torch
            by more than `TOLERANCE`.
    """
    model = _traced(graph)
    if dtype is not torch.float32:
        _store_weights(model, dtype)
    _describe(model, graph, model_name, licence)
    if model.ByteSize() > LARGEST_BYTES:
        raise FlipnetError(f"{model_name}: is 2 GB or larger in {dtype}, more than one ONNX file can hold.")
    content = model.SerializeToString()
    difference = largest_difference(graph, content, faces)
    if not difference <= TOLERANCE:
        raise FlipnetError(
            f"{model_name}: the ONNX graph differs from torch by {difference:.2g} levels of 255, "
            f"more than {TOLERANCE:g}."
        )
    return Exported(content, difference)


@torch.no_grad()
def largest_difference(graph: RestorationGraph, content: bytes, faces: Tensor) -> float:
    """Return the largest difference between onnxruntime and torch over faces (B, 3, S, S), 8-bit levels."""
    import onnxruntime

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    generator = torch.Generator().manual_seed(0)
    worst = 0.0
    for face in faces.split(1):
        noise = torch.randn((1, *graph.noise_shape), generator=generator)
        (restored,) = session.run(None, {INPUT: face.numpy(), NOISE: noise.numpy()})
        worst = max(worst, float(np.abs(restored - graph(face, noise).numpy()).max()))
    return worst * _LEVELS


def _traced(graph: RestorationGraph) -> onnx.ModelProto:
    """Trace two faces at once, with the batch left open.

    By torch's older exporter, our choice: the newer one needs ten times as long, a further package, and gives up
    on an open batch, because diffusers' upsampling asks for 64 and more images at once.
    """
    import onnx

    size = graph.pipeline.native_size_px
    examples = (torch.zeros(2, 3, size, size), torch.zeros(2, *graph.noise_shape))
    file = io.BytesIO()
    with warnings.catch_warnings(), torch.no_grad():
        # Shapes beside the batch are constants on purpose, and the exporter's age is known.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            graph.eval(),
            examples,
            file,  # type: ignore[arg-type]  # the older exporter writes into any file object
            dynamo=False,
            input_names=[INPUT, NOISE],
            output_names=[OUTPUT],
            dynamic_axes={name: {0: "batch"} for name in (INPUT, NOISE, OUTPUT)},
            opset_version=OPSET,
        )
    return onnx.load_from_string(file.getvalue())


def _store_weights(model: onnx.ModelProto, dtype: torch.dtype) -> None:
    """Halve the weights; onnxruntime turns them back into float32 once, when it loads the file."""
    from onnx import TensorProto, helper, numpy_helper

    name = str(dtype).removeprefix("torch.")
    stored_type = TensorProto.FLOAT16 if dtype is torch.float16 else TensorProto.BFLOAT16
    casts = []
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if tensor.data_type != TensorProto.FLOAT or values.size < _SMALLEST_HALVED:
            continue
        with np.errstate(over="ignore"):
            halved = values.astype(helper.tensor_dtype_to_np_dtype(stored_type))
        if not np.isfinite(halved.astype(np.float32)).all():
            raise FlipnetError(f"weight {tensor.name} does not fit {name}, use float32.")
        casts.append(helper.make_node("Cast", [f"{tensor.name}.{name}"], [tensor.name], to=TensorProto.FLOAT))
        tensor.CopyFrom(numpy_helper.from_array(halved, f"{tensor.name}.{name}"))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _describe(model: onnx.ModelProto, graph: RestorationGraph, model_name: str, licence: str) -> None:
    from onnx import helper

    size = graph.pipeline.native_size_px
    model.producer_name, model.producer_version = "flipnet", flipnet.__version__
    model.doc_string = (
        "FLIPNET: restores an aligned face. A restored face is a plausible guess, not evidence."
    )
    properties: dict[str, Sequence[int] | str | float] = {
        "model": model_name,
        "licence": licence,
        "mode": Mode.RESTORATION.value,
        "phi": graph.phi,
        "steps": graph.steps,
        "opset": OPSET,
        INPUT: f"float32 (B, 3, {size}, {size}), RGB, aligned to flipnet's template, in [-1, 1]",
        NOISE: f"float32 (B, {', '.join(map(str, graph.noise_shape))}), standard normal, zeros for one step",
        OUTPUT: f"float32 (B, 3, {size}, {size}), RGB, in [-1, 1]",
    }
    helper.set_model_props(model, {key: str(value) for key, value in properties.items()})
