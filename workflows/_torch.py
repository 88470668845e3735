"""A daskconv network as a PyTorch module: the same layers, weights and order, as PyTorch's users write them."""

from math import prod
from typing import Any

import numpy as np

import daskconv

try:
    import torch
    from torch import nn
except ImportError:
    raise SystemExit("This compares with PyTorch: pip install 'daskconv[bench]'.") from None

functional = nn.functional


class TorchNetwork(nn.Module):
    """A network of the zoo's kinds of layers, with daskconv's initial weights.

    Parameters
    ----------
    network : daskconv.Network
    input_shape : (h, w, c)
    """

    def __init__(self, network: daskconv.Network, input_shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.network, self.shapes = network, network.shapes(input_shape)
        params = network.init(0, input_shape)
        self.parts = nn.ModuleList(self._part(node, params) for node in network.nodes)
        # What a ReLU reads is read by nothing else, so that it may be done in place.
        reads = [name for node in network.nodes for name in node.inputs]
        self.alone = {name for name in reads if reads.count(name) == 1}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the output (n, classes) of images (n, c, h, w)."""
        values = {"input": x}
        last = {name: node.name for node in self.network.nodes for name in node.inputs}
        for node, part in zip(self.network.nodes, self.parts, strict=True):
            values[node.name] = self._run(node, part, [values[name] for name in node.inputs])
            for name in node.inputs:
                if last[name] == node.name:
                    values.pop(name, None)
        return values[self.network.nodes[-1].name]

    def _run(self, node: daskconv.Node, part: nn.Module, x: list[torch.Tensor]) -> torch.Tensor:
        layer = node.layer
        if isinstance(layer, daskconv.ReLU):
            return functional.relu(x[0], inplace=node.inputs[0] in self.alone)
        if isinstance(layer, daskconv.Add):
            return x[0] + x[1]
        if isinstance(layer, daskconv.Concat):
            return torch.cat(x, 1)
        if isinstance(layer, daskconv.GlobalAvgPool2D):
            return functional.adaptive_avg_pool2d(x[0], 1).flatten(1)
        if isinstance(layer, daskconv.Slice):
            return x[0][:, :, :: layer.steps[0], :: layer.steps[1]]
        if isinstance(layer, daskconv.Pad):
            rows, columns, channels = layer.padding
            return functional.pad(x[0], (*columns, *rows, *channels))
        return part(x[0])

    def _part(self, node: daskconv.Node, params: dict[str, np.ndarray]) -> nn.Module:
        layer, shape = node.layer, self.shapes[node.inputs[0]]
        if isinstance(layer, daskconv.Conv2D | daskconv.Dense):
            return self._weighted(node, params)
        if isinstance(layer, daskconv.BatchNorm):
            return nn.BatchNorm2d(shape[2], layer.epsilon, layer.momentum)
        if isinstance(layer, daskconv.MaxPool2D):
            stride = layer.kernel if layer.stride is None else layer.stride
            return nn.MaxPool2d(layer.kernel, stride, layer.padding, ceil_mode=layer.ceil_mode)
        if isinstance(layer, daskconv.AvgPool2D):
            stride = layer.kernel if layer.stride is None else layer.stride
            options: dict[str, Any] = {
                "ceil_mode": layer.ceil_mode,
                "count_include_pad": layer.count_include_pad,
            }
            return nn.AvgPool2d(layer.kernel, stride, layer.padding, **options)
        if isinstance(layer, daskconv.LRN):
            return nn.LocalResponseNorm(layer.size, layer.alpha, layer.beta, layer.k)
        if isinstance(layer, daskconv.Dropout):
            return nn.Dropout(layer.rate)
        if isinstance(layer, daskconv.Flatten):
            return nn.Flatten()
        return nn.Identity()

    def _weighted(self, node: daskconv.Node, params: dict[str, np.ndarray]) -> nn.Module:
        """Return a convolution or a linear layer, whose axes are in PyTorch's order: k c r s, and k c h w."""
        layer, weight = node.layer, params[f"{node.name}.weight"]
        if isinstance(layer, daskconv.Conv2D):
            window = layer.window(self.shapes[node.inputs[0]])
            pads = tuple(before for before, _ in window.padding)
            part: nn.Module = nn.Conv2d(
                weight.shape[2], layer.filters, window.kernel, window.stride, pads, bias=layer.bias
            )
            weight = weight.transpose(3, 2, 0, 1)
        else:
            image = self._flattened(node)
            if image:
                weight = weight.reshape(*image, -1).transpose(2, 0, 1, 3).reshape(prod(image), -1)
            part, weight = nn.Linear(*weight.shape, bias=layer.bias), weight.T
        with torch.no_grad():
            part.weight.copy_(torch.from_numpy(np.ascontiguousarray(weight)))
            if layer.bias:
                part.bias.copy_(torch.from_numpy(params[f"{node.name}.bias"]))
        return part

    def _flattened(self, node: daskconv.Node) -> tuple[int, ...]:
        """Return the shape of the image that a dense layer reads flattened, behind a dropout perhaps."""
        nodes = {other.name: other for other in self.network.nodes}
        before = nodes[node.inputs[0]]
        while isinstance(before.layer, daskconv.Dropout):
            before = nodes[before.inputs[0]]
        return self.shapes[before.inputs[0]] if isinstance(before.layer, daskconv.Flatten) else ()
