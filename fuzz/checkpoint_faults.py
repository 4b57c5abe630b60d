"""What can be wrong with a checkpoint: faults in the fields of its JSON, its tensors and its list of files.

Every fault is drawn from the fuzzer's bytes, so that libFuzzer learns which bytes lead where.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import PurePosixPath
from typing import Any, TypeVar

import diffusers

from flipnet.models.autoencoder import CompactAutoencoder
from flipnet.models.face_encoder import FaceEncoder
from flipnet.models.mode_decoder import ModeDecoder

CLASSES: tuple[Any, ...] = (
    *(CompactAutoencoder, FaceEncoder, ModeDecoder, diffusers.AutoencoderKL, diffusers.AutoencoderTiny),
    *(diffusers.UNet2DConditionModel, diffusers.DDIMScheduler, diffusers.EulerDiscreteScheduler),
    *(diffusers.DDPMScheduler, diffusers.DPMSolverMultistepScheduler, diffusers.UniPCMultistepScheduler),
    diffusers.PNDMScheduler,
)
KEYS = sorted(
    {name for made in CLASSES for name in inspect.signature(made.__init__).parameters} - {"self", "kwargs"}
    | {"_class_name", "_diffusers_version", "_name_or_path", "_use_default_values", "auto_map", "modes"}
    | {"quantization_config", "torch_dtype", "decoders", "format", "lora_rank", "rotary", "__metadata__"}
)
NUMBERS = (
    *(0, 1, -1, 2, 3, 5, 7, 8, 12, 16, 32, 100, 1000, 10**5, 10**6, 10**9, 2**31, 2**63, 2**64, 10**30),
    *(0.5, -0.5, 1e-9, 1e-300, 1e300, float("nan"), float("inf"), float("-inf"), True, False),
)
WORDS = (
    *("", "a", "0", "-1", "4", "1e9", "True", "false", "auto", "None", "..", "../../x", "/etc/passwd", "a/b"),
    *("\n", "\x00", "é", "\ud800", "x" * 5000, "float16", "bfloat16", "F32", "I64", "swish", "gelu", "tanh"),
    *("restoration", "degradation", "epsilon", "sample", "v_prediction", "linear", "squaredcos_cap_v2"),
    *("DownBlock2D", "UpBlock2D", "AttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnUpBlock2D"),
    *("SimpleCrossAttnDownBlock2D", "KDownBlock2D", "ResnetDownsampleBlock2D", "UNetMidBlock2D"),
    *("UNetMidBlock2DCrossAttn", "positional", "fourier", "learned", "timestep", "projection", "text"),
    *("text_image", "image", "simple_projection", "group", "spatial", "leading", "trailing", "linspace"),
    *(
        "ada_group",
        "scale_shift",
        "dpmsolver++",
        "bh1",
        "karras",
        "zero",
        "sigma_min",
        "rescale_betas_zero_snr",
    ),
)
# Text that no Python object gives when it is dumped.
RAW = (
    *("[" * 100_000 + "]" * 100_000, '{"a":' * 5000 + "1" + "}" * 5000, "1" * 5000, "1e999", "-0.0"),
    *('"\\ud800\\udc00"', "01", "'a'", "nul", "{,}", '{"a":1,"a":2}'),
)
DTYPES = {
    "BOOL": 1,
    "U8": 1,
    "F8_E4M3": 1,
    "F16": 2,
    "BF16": 2,
    "I16": 2,
    "F32": 4,
    "I32": 4,
    "F64": 8,
    "I64": 8,
}
SURPLUS = (
    *(
        "unet/a.pkl",
        "a.bin",
        "vae/diffusion_pytorch_model.bin",
        "unet/x.safetensors",
        "modes/other.safetensors",
    ),
    *("unet/diffusion_pytorch_model.safetensors.index.json", "decoders/other/config.json", "a\nb.json"),
    *("unet/diffusion_pytorch_model.fp16.safetensors", "unet/adapter_config.json", "sha256.json", ".hidden"),
    *("unet/model.safetensors", "vae/dduf.json", "unet/quantization_config.json"),
)


T = TypeVar("T")


class Choices:
    """Choices read off the fuzzer's bytes, a byte for most, so that one byte changed is one choice changed.

    Where the bytes have run out it is always the first.
    """

    def __init__(self, data: bytes) -> None:
        self._data = iter(data)

    def below(self, end: int) -> int:
        """A whole number from 0 to end - 1."""
        taken = max(1, ((end - 1).bit_length() + 7) // 8)
        return int.from_bytes(bytes(next(self._data, 0) for _ in range(taken))) % end

    def one_of(self, values: Sequence[T]) -> T:
        """One of the values."""
        return values[self.below(len(values))]

    def once_in(self, times: int) -> bool:
        """True once in so many times."""
        return self.below(times) == times - 1


@dataclass(frozen=True)
class Link:
    """A symbolic link in the place of a file."""

    target: str


Changes = dict[str, "bytes | Link | None"]
"""What stands at a path of the folder instead: bytes, a link, or nothing."""


def spoil(choices: Choices, whole: Mapping[str, bytes]) -> Changes:
    """Draw one to three faults; return what they change in a checkpoint of the given files."""
    changes: Changes = {}
    paths = sorted(whole)
    path = choices.one_of(paths)
    for _ in range(1 + choices.below(3)):
        content = changes.get(path, whole[path])
        if not isinstance(content, bytes) or choices.once_in(12):
            _change_files(choices, whole, changes, path)
        elif choices.once_in(12):
            changes[path] = _spliced(choices, content)
        elif path.endswith(".json"):
            changes[path] = spoilt_json(choices, content)
        else:
            changes[path] = spoilt_tensors(choices, content)
        # Most faults that only show together lie in one part: its config and its weights.
        part = [other for other in paths if PurePosixPath(other).parent == PurePosixPath(path).parent]
        path = choices.one_of(paths if choices.once_in(5) else part)
    return changes


def _change_files(choices: Choices, whole: Mapping[str, bytes], changes: Changes, path: str) -> None:
    kind = choices.below(5)
    other = choices.one_of(sorted(whole))
    if kind == 0:
        changes[path] = None
    elif kind == 1:
        changes[path] = whole[other]
    elif kind == 2:
        targets = ("/etc/hostname", "/dev/null", "..", ".", path.rpartition("/")[2], other)
        changes[path] = Link(choices.one_of(targets))
    else:
        changes[choices.one_of(SURPLUS)] = whole[other] if kind == 3 else b""


def _spliced(choices: Choices, content: bytes) -> bytes:
    """Cut off, grow, or overwrite some bytes."""
    kind = choices.below(3)
    where = choices.below(min(len(content), 4000) + 1)
    if kind == 0:
        return content[:where]
    put = bytes(choices.below(256) for _ in range(choices.below(9)))
    return content[:where] + put + content[where + (len(put) if kind == 1 else 0) :]


# ---------------------------------------------------------------------------------------------------- JSON


def spoilt_json(choices: Choices, content: bytes) -> bytes:
    """Change one field of a JSON document; what is no JSON any more is spliced."""
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        return _spliced(choices, content)
    return _json_bytes(choices, value)


def _json_bytes(choices: Choices, value: Any) -> bytes:
    """Change one field of a value, and write it as JSON, with what only text can say."""
    raw = choices.one_of(RAW)
    text = json.dumps(_changed(choices, value, 0))
    text = text.replace('"<raw>"', raw)
    if text.endswith("}") and len(text) > 2 and choices.once_in(20):
        key = json.dumps(choices.one_of(KEYS))
        text = f"{text[:-1]}, {key}: 1, {key}: {json.dumps(_leaf(choices, 1))}}}"
    return text.encode("utf-8", "surrogatepass")


def _changed(choices: Choices, value: Any, depth: int) -> Any:
    """Go down to a field, and put another value there, take it away or add one beside it."""
    if not isinstance(value, (dict, list)) or not value or (depth and choices.once_in(4)):
        return _leaf(choices, value)
    kind = choices.below(10)
    if isinstance(value, dict):
        key = choices.one_of(list(value))
        if kind == 0:
            return {name: held for name, held in value.items() if name != key}
        if kind <= 2:
            return value | {choices.one_of(KEYS): _leaf(choices, value[key])}
        if kind == 3:
            return {choices.one_of(KEYS) if n == key else n: held for n, held in value.items()}
        return value | {key: _changed(choices, value[key], depth + 1)}
    index = choices.below(len(value))
    if kind == 0:
        return value[:index] + value[index + 1 :]
    if kind == 1:
        return value[:index] + [value[index]] * 2 + value[index + 1 :]
    return [*value[:index], _changed(choices, value[index], depth + 1), *value[index + 1 :]]


def _leaf(choices: Choices, old: Any) -> Any:
    kind = choices.below(12)
    if kind <= 2:
        return choices.one_of(NUMBERS)
    if kind == 3:
        return choices.one_of(WORDS)
    if kind == 4:
        return choices.one_of(([], {}, None, [None], [[]], [0], {"a": 1}, [""], "<raw>"))
    if kind == 5:
        return [old] * choices.below(7)
    if kind == 6:
        return [choices.one_of(NUMBERS) for _ in range(1 + choices.below(6))]
    if kind == 7:
        return [choices.one_of(WORDS) for _ in range(1 + choices.below(4))]
    if kind == 8:
        return choices.below(2**32) - 2**31
    if kind == 9:
        return (choices.below(2**16) - 2**15) / 2 ** choices.below(32)
    if isinstance(old, (int, float)):
        return old + choices.one_of((1, -1, old))
    return str(old) if kind == 10 else {"value": old}


# ------------------------------------------------------------------------------------------------- tensors

Stored = dict[str, tuple[str, list[int], bytes]]
"""Type, shape and bytes of every tensor."""


def spoilt_tensors(choices: Choices, content: bytes) -> bytes:
    """Change the header of a safetensors file, or a tensor of it with the header to match."""
    length = int.from_bytes(content[:8], "little")
    try:
        header = json.loads(content[8 : 8 + length])
        metadata = header.pop("__metadata__", {})
        data = content[8 + length :]
        tensors: Stored = {
            name: (held["dtype"], held["shape"], data[slice(*held["data_offsets"])])
            for name, held in header.items()
        }
        kind = choices.below(4)
        if kind == 0:
            return _file(_json_bytes(choices, header | {"__metadata__": metadata}), data)
        if kind == 1 and metadata:
            return _assembled(tensors, json.loads(_json_bytes(choices, metadata)))
        names = sorted(tensors)
        change: Callable[..., None] = choices.one_of(TENSOR_CHANGES)
        change(choices, tensors, choices.one_of(names))
        return _assembled(tensors, metadata)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        # An earlier fault left nothing to take apart, or this one cannot be written down.
        return _spliced(choices, content)


def _file(header: bytes, data: bytes) -> bytes:
    return len(header).to_bytes(8, "little") + header + data


def _assembled(tensors: Stored, metadata: dict[str, Any]) -> bytes:
    header: dict[str, Any] = {"__metadata__": metadata}
    at = 0
    for name, (dtype, shape, data) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + len(data)]}
        at += len(data)
    return _file(json.dumps(header).encode(), b"".join(data for _, _, data in tensors.values()))


def _drop(choices: Choices, tensors: Stored, name: str) -> None:
    del tensors[name]


def _rename(choices: Choices, tensors: Stored, name: str) -> None:
    tail = choices.one_of((".", ".weight", ".0", "../x", "\n", ".lora_A.weight", ".base_layer"))
    tensors[name + tail] = tensors.pop(name)


def _add(choices: Choices, tensors: Stored, name: str) -> None:
    tensors[f"{name}.{choices.below(10**9)}.weight"] = tensors[name]


def _renumber(choices: Choices, tensors: Stored, name: str) -> None:
    """Put another number where the name has one: single files tell their layers by them."""
    parts = name.split(".")
    places = [index for index, part in enumerate(parts) if part.isdecimal()] or [0]
    parts[choices.one_of(places)] = str(choices.one_of((0, 1, 2, 9, 10**9, 10**30)))
    tensors[".".join(parts)] = tensors[name]


def _reshape(choices: Choices, tensors: Stored, name: str) -> None:
    """Other sizes with as many bytes, none among them."""
    dtype, shape, data = tensors[name]
    count = len(data) // DTYPES.get(dtype, 1)
    huge = choices.one_of((10**5, 10**9, 2**40, 2**62))
    others = ([count], [1, count], [*shape, 1], shape[::-1], [], [0], [huge, 0], [huge, 0, 3, 3], [0, huge])
    new = choices.one_of(others)
    tensors[name] = (dtype, new, b"" if 0 in new else data[:4] if not new else data)


def _repeat(choices: Choices, tensors: Stored, name: str) -> None:
    dtype, shape, data = tensors[name]
    if shape:
        times = 2 + choices.below(3)
        tensors[name] = (dtype, [shape[0] * times, *shape[1:]], data * times)


def _retype(choices: Choices, tensors: Stored, name: str) -> None:
    """Another type, one that takes as much room or a tensor of zeros, of one tensor or of all."""
    dtype = choices.one_of(sorted(DTYPES))
    for one in [name] if choices.once_in(2) else list(tensors):
        old, shape, data = tensors[one]
        tensors[one] = (dtype, shape, bytes(len(data) // DTYPES.get(old, 1) * DTYPES[dtype]))


def _poke(choices: Choices, tensors: Stored, name: str, values: tuple[bytes, ...]) -> None:
    dtype, shape, data = tensors[name]
    value = choices.one_of(values)
    at = choices.below(max(1, len(data) // 4)) * 4
    tensors[name] = (dtype, shape, (data[:at] + value + data[at + 4 :])[: len(data)])


def _exchange(choices: Choices, tensors: Stored, name: str) -> None:
    other = choices.one_of(sorted(tensors))
    tensors[name], tensors[other] = tensors[other], tensors[name]


# float32: NaN, infinity, the largest number, and a number whose square is infinite.
NOT_FINITE = tuple(bytes.fromhex(word) for word in ("0000c07f", "0000807f", "ffff7f7f", "ffffff60"))
TENSOR_CHANGES = (
    *(_drop, _rename, _add, _renumber, _reshape, _repeat, _retype, _exchange),
    partial(_poke, values=NOT_FINITE),
)
