"""Weights of torchvision's and timm's networks: PyTorch's own modules, built here, say what is right."""

import re

import numpy as np
import pytest

import daskconv
from daskconv import zoo
from daskconv.errors import DataError
from daskconv.nn.zoo.torch_names import torch_names
from reference import refuse

torch = pytest.importorskip(
    "torch", reason="PyTorch is not installed: its networks' weights are not loaded (extra: bench)"
)
safetensors = pytest.importorskip("safetensors.torch")
nn = torch.nn
CLASSES = 7


# torchvision's networks, with its names.


def alexnet():
    features = nn.Sequential(
        *(nn.Conv2d(3, 64, 11, 4, 2), nn.ReLU(), nn.MaxPool2d(3, 2)),
        *(nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2)),
        *(nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(), nn.Conv2d(384, 256, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2)),
    )
    classifier = nn.Sequential(
        *(nn.Dropout(), nn.Linear(256 * 6 * 6, 4096), nn.ReLU()),
        *(nn.Dropout(), nn.Linear(4096, 4096), nn.ReLU(), nn.Linear(4096, CLASSES)),
    )
    return Flat(features, 6, classifier)


class Flat(nn.Module):
    def __init__(self, features, size, classifier):
        super().__init__()
        self.features, self.avgpool, self.classifier = features, nn.AdaptiveAvgPool2d(size), classifier

    def forward(self, x):
        return self.classifier(torch.flatten(self.avgpool(self.features(x)), 1))


def vgg(depths, norms=False):
    layers, c = [], 3
    for depth, width in zip(depths, (64, 128, 256, 512, 512), strict=True):
        for _ in range(depth):
            layers += [
                nn.Conv2d(c, width, 3, padding=1),
                *([nn.BatchNorm2d(width)] if norms else []),
                nn.ReLU(),
            ]
            c = width
        layers.append(nn.MaxPool2d(2))
    classifier = nn.Sequential(
        *(nn.Linear(512 * 7 * 7, 4096), nn.ReLU(), nn.Dropout()),
        *(nn.Linear(4096, 4096), nn.ReLU(), nn.Dropout(), nn.Linear(4096, CLASSES)),
    )
    return Flat(nn.Sequential(*layers), 7, classifier)


class Block(nn.Module):
    def __init__(self, c, width, stride, widening):
        super().__init__()
        out = width * widening
        kernels = [(3, stride), (3, 1)] if widening == 1 else [(1, 1), (3, stride), (1, 1)]
        self.count = len(kernels)
        for number, (kernel, step) in enumerate(kernels, 1):
            k = out if number == self.count else width
            setattr(self, f"conv{number}", nn.Conv2d(c, k, kernel, step, kernel // 2, bias=False))
            setattr(self, f"bn{number}", nn.BatchNorm2d(k))
            c = k
        self.downsample = None

    def forward(self, x):
        y = x
        for number in range(1, self.count + 1):
            y = getattr(self, f"bn{number}")(getattr(self, f"conv{number}")(y))
            y = torch.relu(y) if number < self.count else y
        return torch.relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNet(nn.Module):
    def __init__(self, depths, widening):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64)
        self.maxpool, c = nn.MaxPool2d(3, 2, 1), 64
        for stage, depth in enumerate(depths):
            blocks, width = [], 64 * 2**stage
            for number in range(depth):
                stride = 2 if stage and not number else 1
                blocks.append(Block(c, width, stride, widening))
                if stride > 1 or c != width * widening:
                    blocks[-1].downsample = nn.Sequential(
                        nn.Conv2d(c, width * widening, 1, stride, bias=False),
                        nn.BatchNorm2d(width * widening),
                    )
                c = width * widening
            setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))
        self.fc = nn.Linear(c, CLASSES)

    def forward(self, x):
        x = self.maxpool(torch.relu(self.bn1(self.conv1(x))))
        for stage in range(1, 5):
            x = getattr(self, f"layer{stage}")(x)
        return self.fc(x.mean((2, 3)))


class Fire(nn.Module):
    def __init__(self, c, squeeze, expand):
        super().__init__()
        self.squeeze = nn.Conv2d(c, squeeze, 1)
        self.expand1x1, self.expand3x3 = (
            nn.Conv2d(squeeze, expand, 1),
            nn.Conv2d(squeeze, expand, 3, padding=1),
        )

    def forward(self, x):
        x = torch.relu(self.squeeze(x))
        return torch.relu(torch.cat([self.expand1x1(x), self.expand3x3(x)], 1))


def squeezenet():
    pool = {"kernel_size": 3, "stride": 2, "ceil_mode": True}
    features = nn.Sequential(
        *(nn.Conv2d(3, 64, 3, 2), nn.ReLU(), nn.MaxPool2d(**pool), Fire(64, 16, 64), Fire(128, 16, 64)),
        *(nn.MaxPool2d(**pool), Fire(128, 32, 128), Fire(256, 32, 128), nn.MaxPool2d(**pool)),
        *(Fire(256, 48, 192), Fire(384, 48, 192), Fire(384, 64, 256), Fire(512, 64, 256)),
    )
    classifier = nn.Sequential(nn.Dropout(), nn.Conv2d(512, CLASSES, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
    net = Flat(features, 1, classifier)
    net.avgpool = nn.Identity()
    net.forward = lambda x: torch.flatten(net.classifier(net.features(x)), 1)
    return net


MODULES = {
    "alexnet": alexnet,
    "resnet18": lambda: ResNet((2, 2, 2, 2), 1),
    "resnet50": lambda: ResNet((3, 4, 6, 3), 4),
    "resnet152": lambda: ResNet((3, 8, 36, 3), 4),
    "squeezenet": squeezenet,
    "vgg11": lambda: vgg((1, 1, 2, 2, 2)),
    "vgg16": lambda: vgg((2, 2, 3, 3, 3)),
    "vgg19": lambda: vgg((2, 2, 4, 4, 4)),
}
SIZES = {"resnet18": 96, "resnet50": 64, "resnet152": 64, "squeezenet": 63}
SLOW = ("resnet152", "vgg16", "vgg19")


def drawn(name):
    """The module with weights that keep signals alive, and batch norms that have seen data."""
    torch.manual_seed(0)
    module = MODULES[name]().eval()
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            for array, low, high in (
                *((layer.weight, 0.5, 1), (layer.bias, -0.3, 0.3)),
                *((layer.running_mean, -0.3, 0.3), (layer.running_var, 0.5, 2)),
            ):
                nn.init.uniform_(array, low, high)
        elif isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            if layer.bias is not None:
                nn.init.uniform_(layer.bias, -0.5, 0.5)
    return module


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in MODULES]
)
def test_the_outputs_are_those_of_pytorch(name, tmp_path):
    module, size = drawn(name), SIZES.get(name, 224)
    path = tmp_path / f"{name}.safetensors"
    safetensors.save_file(module.state_dict(), path)
    model = daskconv.load_torch(path, name, input_shape=(size, size, 3), class_names=list("abcdefg"))
    x = np.random.default_rng(0).integers(0, 256, (2, size, size, 3), np.uint8)
    mean, deviation = (torch.tensor(v)[:, None, None] for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    with torch.no_grad():
        want = module((torch.from_numpy(x.transpose(0, 3, 1, 2)) / 255 - mean) / deviation).numpy()
    got = model.predict(x, precision="exact")
    assert (
        got.shape == want.shape == (2, CLASSES)
        and want.std() > 0.01
        and model.class_names == tuple("abcdefg")
    )
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-4 * abs(want).max())


@pytest.mark.parametrize("name", MODULES)
def test_every_layer_has_a_name_of_torchvision(name):
    with torch.device("meta"):
        module = MODULES[name]()
    modules = {key.rpartition(".")[0] for key in module.state_dict()}
    names = torch_names(zoo.build(name, CLASSES))
    assert set(names.values()) == modules and len(names) == len(modules)
    with_weights = {weight.rpartition(".")[0] for weight in zoo.ZOO[name]().weight_shapes((224, 224, 3))}
    assert set(names) == with_weights


def test_timm_calls_the_dense_layers_of_vgg_otherwise(tmp_path):
    state = drawn("vgg11").state_dict()
    timm = {
        "classifier.0": ("pre_logits.fc1", 7),
        "classifier.3": ("pre_logits.fc2", 1),
        "classifier.6": ("head.fc", 0),
    }
    other = {}
    for key, array in state.items():
        name, _, weight = key.rpartition(".")
        renamed, size = timm.get(name, (name, 0))
        array = array.reshape(len(array), -1, size, size) if size and weight == "weight" else array
        other[f"{renamed}.{weight}"] = array
    safetensors.save_file(state, tmp_path / "one.safetensors")
    safetensors.save_file(other, tmp_path / "other.safetensors")
    one, same = (daskconv.load_torch(tmp_path / f"{name}.safetensors", "vgg11") for name in ("one", "other"))
    assert one.params.keys() == same.params.keys()
    assert all((one.params[name] == same.params[name]).all() for name in one.params)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """SqueezeNet's weights, in a file."""
    path = tmp_path_factory.mktemp("torch") / "squeezenet.safetensors"
    safetensors.save_file(drawn("squeezenet").state_dict(), path)
    return path


def changed(small, **arrays):
    """The file's weights with others, or without those that are None."""
    state = safetensors.load_file(small) | {name.replace("__", "."): array for name, array in arrays.items()}
    path = small.with_name("changed.safetensors")
    safetensors.save_file({name: array for name, array in state.items() if array is not None}, path)
    return path


def test_half_precision_becomes_float32(small):
    state = {name: array.half() for name, array in safetensors.load_file(small).items()}
    path = small.with_name("half.safetensors")
    safetensors.save_file(state, path)
    model = daskconv.load_torch(path, "squeezenet", preprocess=None)
    assert {array.dtype for array in model.params.values()} == {np.dtype(np.float32)}
    assert model.preprocess is None and model.input_shape == (224, 224, 3)


def test_files_of_other_networks(small):
    load = daskconv.load_torch
    refuse(
        "holds no 'fc.bias', which resnet18 needs: it is of another network",
        load,
        small,
        "resnet18",
        error=DataError,
    )
    path = changed(small, extra__weight=torch.ones(2))
    refuse(
        "holds 'extra.weight', for which squeezenet has no place", load, path, "squeezenet", error=DataError
    )
    refuse(
        "holds no 'features.0.bias'",
        load,
        changed(small, features__0__bias=None),
        "squeezenet",
        error=DataError,
    )
    first = torch.ones(96, 3, 7, 7)  # as in squeezenet1_0
    refuse(
        "features.0.weight has shape (96, 3, 7, 7) and squeezenet needs (64, 3, 3, 3)",
        *(load, changed(small, features__0__weight=first), "squeezenet"),
        error=DataError,
    )
    bad = torch.full((64,), float("nan"))
    path = changed(small, features__0__bias=bad)
    refuse("features.0.bias holds values that are not finite", load, path, "squeezenet", error=DataError)


def test_networks_that_are_not_torchvisions(small, tmp_path):
    refuse("torchvision's has batch norms where this one, Caffe's", daskconv.load_torch, small, "googlenet")
    refuse(
        "torchvision has no network of that name: choose one of alexnet", daskconv.load_torch, small, "lenet"
    )
    refuse("net is 'resnet34': choose one of", daskconv.load_torch, small, "resnet34")
    refuse("preprocess is 'unit'", daskconv.load_torch, small, "squeezenet", preprocess="unit")
    refuse(
        "input_shape is (224, 224): give (h, w, c)",
        daskconv.load_torch,
        small,
        "squeezenet",
        input_shape=(224, 224),
    )
    path = tmp_path / "vgg11_bn.safetensors"
    safetensors.save_file(vgg((1, 1, 2, 2, 2), norms=True).features.state_dict(prefix="features."), path)
    refuse("has batch norms and vgg11 has none here", daskconv.load_torch, path, "vgg11", error=DataError)


@pytest.mark.parametrize("old", [False, True])
def test_pickles_are_not_read(tmp_path, old):
    path = tmp_path / "weights.pth"
    torch.save({"a": torch.ones(1)}, path, _use_new_zipfile_serialization=not old)
    sentence = refuse(
        "is a pickle, which may run code, and is not read",
        daskconv.load_torch,
        path,
        "vgg11",
        error=DataError,
    )
    assert re.search(r"safetensors\.torch\.save_file\(torch\.load\(path, weights_only=True\)", sentence)


def test_damaged_files(small, tmp_path):
    refuse("is no file: give", daskconv.load_torch, tmp_path / "none", "vgg11", error=DataError)
    (tmp_path / "half").write_bytes(small.read_bytes()[:-1000])
    refuse(
        "is damaged, no safetensors file",
        daskconv.load_torch,
        tmp_path / "half",
        "squeezenet",
        error=DataError,
    )
