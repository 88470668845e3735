"""Networks that published scaling curves are of, and layers scaled to the published speed of one device."""

from dataclasses import replace

from daskconv import AvgPool2D, BatchNorm, Concat, Conv2D, Dense, GlobalAvgPool2D, MaxPool2D, Network, ReLU
from daskconv.cost.machine import Kernel, Machine
from daskconv.cost.price import price
from daskconv.cost.trace import Case
from daskconv.nn.zoo import resnet
from daskconv.nn.zoo.graph import Graph
from daskconv.plan import plans


def resnet101(classes: int = 1000) -> Network:
    """Return ResNet-101 (He et al. 2016)."""
    return resnet._large("resnet101", (3, 4, 23, 3), 4, classes)


class Inception(Graph):
    """Convolutions with batch norms, and modules of branches."""

    def conv(
        self,
        filters: int,
        kernel: int | tuple[int, int],
        stride: int = 1,
        padding: object = "same",
        read: str = "",
    ) -> str:
        name = f"conv{len(self.nodes)}"
        layer = Conv2D(filters, kernel, stride=stride, padding=padding, bias=False)
        self.add(name, layer, *([read] if read else []))
        self.add(f"{name}/norm", BatchNorm())
        return self.add(f"{name}/relu", ReLU())

    def chain(self, read: str, *convs: tuple) -> str:
        """Add convolutions that each read the one before."""
        for conv in convs:
            read = self.conv(*conv, read=read)
        return read

    def module(self, *branches: str) -> str:
        return self.add(f"module{len(self.nodes)}", Concat(), *branches)

    def pooled(self, read: str, filters: int) -> str:
        pool = self.add(f"pool{len(self.nodes)}", AvgPool2D(3, stride=1, padding=1), read)
        return self.conv(filters, 1, read=pool)

    def halved(self, read: str) -> str:
        return self.add(f"pool{len(self.nodes)}", MaxPool2D(3, stride=2), read)


def inception_v3(classes: int = 1000) -> Network:
    """Return Inception V3 for images of 299x299 (Szegedy et al. 2016): 23.8 million parameters, no auxiliary head."""
    net = Inception()
    x = net.chain("input", (32, 3, 2, 0), (32, 3, 1, 0), (64, 3))
    x = net.chain(net.halved(x), (80, 1), (192, 3, 1, 0))
    x = net.halved(x)
    for filters in (32, 64, 64):
        small, large = net.chain(x, (48, 1), (64, 5)), net.chain(x, (64, 1), (96, 3), (96, 3))
        x = net.module(net.chain(x, (64, 1)), small, large, net.pooled(x, filters))
    x = net.module(net.chain(x, (384, 3, 2, 0)), net.chain(x, (64, 1), (96, 3), (96, 3, 2, 0)), net.halved(x))
    for c in (128, 160, 160, 192):
        small = net.chain(x, (c, 1), (c, (1, 7)), (192, (7, 1)))
        large = net.chain(x, (c, 1), (c, (7, 1)), (c, (1, 7)), (c, (7, 1)), (192, (1, 7)))
        x = net.module(net.chain(x, (192, 1)), small, large, net.pooled(x, 192))
    small = net.chain(x, (192, 1), (320, 3, 2, 0))
    large = net.chain(x, (192, 1), (192, (1, 7)), (192, (7, 1)), (192, 3, 2, 0))
    x = net.module(small, large, net.halved(x))
    for _ in range(2):
        small, large = net.chain(x, (384, 1)), net.chain(x, (448, 1), (384, 3))
        sides = [net.chain(read, (384, kernel)) for read in (small, large) for kernel in ((1, 3), (3, 1))]
        x = net.module(net.chain(x, (320, 1)), *sides, net.pooled(x, 192))
    net.add("pool", GlobalAvgPool2D(), x)
    net.add("dense", Dense(classes))
    return net.network("inception_v3")


def at_speed(machine: Machine, case: Case, images_per_second: float) -> Machine:
    """Return the machine with layers so fast that one device takes so many images of the case a second."""
    guess = price(case, plans.data(1), replace(machine, hosts=1))
    factor = case.batch / images_per_second / guess.compute
    rows = []
    for layer in guess.layers:
        if layer.step.work is not None:
            for pass_, seconds in (("forward", layer.forward), ("backward", layer.backward)):
                rows.append(Kernel(layer.step.work.label, pass_, 0.0, seconds * factor / case.batch))
    return replace(machine, kernels=tuple(rows))
