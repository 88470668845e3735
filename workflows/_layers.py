"""The convolutions that experiments time: the slides' CIFAR-10 net, GoogLeNet, 1x1 layers and random ones."""

from dataclasses import dataclass

import numpy as np

from daskconv.geometry import Window
from daskconv.graph.choose import ConvShape


@dataclass(frozen=True)
class Layer:
    """A convolution of square images (size, size, c) to k channels, padded by half the kernel."""

    name: str
    size: int
    c: int
    k: int
    kernel: int
    stride: int = 1
    batch: int = 32

    @property
    def window(self) -> Window:
        return Window.of(self.kernel, (self.size, self.size), stride=self.stride, padding=self.kernel // 2)

    @property
    def shape(self) -> ConvShape:
        """What daskconv chooses a method by."""
        return ConvShape(self.window, (self.size, self.size), self.c, self.k)

    @property
    def flops(self) -> int:
        """The nominal operations of one pass, padded taps included."""
        return self.window.flops(self.batch, self.size, self.size, self.c, self.k)

    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return random images x, filters w and a gradient dy."""
        generator = np.random.default_rng(0)
        p, q = self.window.output_size(self.size, self.size)
        shapes = (
            (self.batch, self.size, self.size, self.c),
            (self.kernel, self.kernel, self.c, self.k),
            (self.batch, p, q, self.k),
        )
        x, w, dy = (generator.standard_normal(shape, np.float32) for shape in shapes)
        return x, w, dy


def inception(name: str, size: int, three: tuple[int, int], five: tuple[int, int]) -> list[Layer]:
    return [Layer(f"{name}/3x3", size, *three, 3), Layer(f"{name}/5x5", size, *five, 5)]


CIFAR = [
    Layer("cifar/conv1", 32, 3, 32, 5, batch=100),
    Layer("cifar/conv2", 16, 32, 32, 5, batch=100),
    Layer("cifar/conv3", 8, 32, 64, 5, batch=100),
]
GOOGLENET = [
    Layer("googlenet/conv1", 224, 3, 64, 7, 2),
    Layer("googlenet/conv2", 56, 64, 192, 3),
    *inception("googlenet/3a", 28, (96, 128), (16, 32)),
    *inception("googlenet/3b", 28, (128, 192), (32, 96)),
    *inception("googlenet/4a", 14, (96, 208), (16, 48)),
    *inception("googlenet/4b", 14, (112, 224), (24, 64)),
    *inception("googlenet/4c", 14, (128, 256), (24, 64)),
    *inception("googlenet/4d", 14, (144, 288), (32, 64)),
    *inception("googlenet/4e", 14, (160, 320), (32, 128)),
    *inception("googlenet/5a", 7, (160, 320), (32, 128)),
    *inception("googlenet/5b", 7, (192, 384), (48, 128)),
]
POINTWISE = [
    Layer("googlenet/conv2/1x1", 56, 64, 64, 1),
    Layer("googlenet/3a/1x1", 28, 192, 64, 1),
    Layer("googlenet/4a/1x1", 14, 480, 192, 1),
    Layer("googlenet/5b/1x1", 7, 832, 384, 1),
    Layer("resnet50/2/reduce", 56, 256, 64, 1),
    Layer("resnet50/3/expand", 28, 128, 512, 1),
    Layer("resnet50/4/reduce", 14, 1024, 256, 1),
    Layer("resnet50/5/expand", 7, 512, 2048, 1),
]


LARGE = [Layer(f"large/{kernel}x{kernel}", 56, 32, 32, kernel, batch=8) for kernel in (7, 11, 15, 31)]


def random_layers(count: int = 10) -> list[Layer]:
    generator = np.random.default_rng(20)
    return [
        Layer(
            f"random/{number}",
            int(generator.integers(7, 60)),
            int(generator.integers(8, 200)),
            int(generator.integers(8, 200)),
            int(generator.choice([1, 3, 5])),
            int(generator.choice([1, 1, 2])),
            batch=8,
        )
        for number in range(count)
    ]
