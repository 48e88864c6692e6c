"""The multi-scale network's int8 twin, run by onnxruntime: 8-bit weights by output channel and 8-bit activations."""

import logging
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from onnxruntime import InferenceSession, SessionOptions
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from spikingir.networks.multiscale import MultiScaleNet

Run = Callable[[Tensor], Tensor]
"""Restores images with their level, (1, channels + 1, H, W)."""


def float_twin(network: MultiScaleNet, threads: int) -> Run:
    """The network in float32, by onnxruntime."""
    return _restorer(network, _session(_model(network).SerializeToString(), threads))


def int8_twin(network: MultiScaleNet, calibration: Iterable[Tensor], threads: int) -> Run:
    """The network in 8 bits, by onnxruntime.

    Args:
        network: A network with a level input.
        calibration: Images with their level, whose activations set the ranges.
        threads: Threads that onnxruntime uses.
    """
    with tempfile.TemporaryDirectory() as folder:
        plain, quantised = Path(folder) / "plain.onnx", Path(folder) / "int8.onnx"
        onnx.save(_model(network), plain)
        logging.disable(logging.WARNING)  # it asks for optimisations beforehand, of which there are none to make here
        try:
            quantize_static(
                plain,
                quantised,
                _Images([_inputs(network, image) for image in calibration]),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
            )
        finally:
            logging.disable(logging.NOTSET)
        return _restorer(network, _session(quantised.read_bytes(), threads))


class _Images(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, inputs: list[Tensor]) -> None:
        self._left = iter(inputs)

    def get_next(self) -> dict[str, np.ndarray[Any, Any]] | None:
        image = next(self._left, None)
        return None if image is None else {"u": image.numpy()}


def _inputs(network: MultiScaleNet, image: Tensor) -> Tensor:
    """What the body's convolutions read of an image and its level."""
    pixels, level = image[:, : network.channels], image[:, network.channels :]
    return torch.cat([functional.pixel_unshuffle(pixels, 2), functional.avg_pool2d(level, 2)], 1).contiguous()


def _restorer(network: MultiScaleNet, session: InferenceSession) -> Run:
    def run(image: Tensor) -> Tensor:
        (estimate,) = session.run(None, {"u": _inputs(network, image).numpy()})
        return image[:, : network.channels] - image[:, network.channels :] * torch.from_numpy(estimate)

    return run


def _session(content: bytes, threads: int) -> InferenceSession:
    options = SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    return InferenceSession(content, options, providers=["CPUExecutionProvider"])


def _model(network: MultiScaleNet) -> onnx.ModelProto:
    """The body behind the image's shuffle, up to the estimate."""
    nodes: list[onnx.NodeProto] = []
    numbers: list[onnx.TensorProto] = []
    body: Any = network.body

    def add(operation: str, *inputs: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(operation, inputs, [f"x{len(nodes)}"], **attributes))
        return nodes[-1].output[0]

    def convolve(module: nn.Module, x: str) -> str:
        convolution: Any = module
        if isinstance(module, nn.Sequential):
            convolution = module[0] if len(module) == 1 else fuse_conv_bn_eval(module[0], module[1])
        names = [x]
        for tensor in (convolution.weight, convolution.bias):
            if tensor is not None:
                names.append(f"w{len(numbers)}")
                numbers.append(numpy_helper.from_array(tensor.detach().contiguous().numpy(), names[-1]))
        pads = [*convolution.padding, *convolution.padding]
        return add("Conv", *names, strides=list(convolution.stride), pads=pads)

    def block(module: Any, x: str) -> str:
        z = convolve(module.conv2, add("Relu", convolve(module.conv1, x)))
        if module.residual:
            z = add("Add", z, x)
        if module.inject is not None:
            z = add("Add", z, convolve(module.inject, "u"))
        return add("Relu", z)

    def shuffled(x: str) -> str:
        return add("DepthToSpace", x, blocksize=2, mode="CRD")

    h = add("Relu", convolve(body.head, "u"))
    skips = []
    for chain, down in zip(body.encoder, body.down, strict=True):
        for module in chain:
            h = block(module, h)
        skips.append(h)
        h = add("Relu", convolve(down.conv, h))
    for module in body.middle:
        h = block(module, h)
    for i in reversed(range(len(skips))):
        h = add("Relu", add("Add", shuffled(convolve(body.up[i].conv, h)), skips[i]))
        for module in body.decoder[i]:
            h = block(module, h)
    out = shuffled(add("Add", convolve(body.last, h), convolve(body.last_of_image, "u")))
    shapes = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, None, None, None]) for name in ("u", out)]
    graph = helper.make_graph(nodes, "multiscale", shapes[:1], shapes[1:], numbers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
