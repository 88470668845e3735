"""Plans: a Layout for each layer. Data, model, hybrid and spatial parallelism are four of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import cached_property
from math import lcm
from typing import TYPE_CHECKING, Any

from daskconv.errors import InputError, check_count
from daskconv.layout import Layout
from daskconv.nn.layers import Conv2D, Dense
from daskconv.plan.slices import Slices

if TYPE_CHECKING:
    from daskconv.nn.network import Network

DEFAULT_SHARDS = 4


@dataclass(frozen=True)
class Plan:
    """A Layout for each layer.

    Layers without weights are laid out as what they read, as far as they can be split that way.

    Attributes
    ----------
    name : str
    layout : Layout
        Of every layer that nothing below names.
    model : Layout, optional
        Of the layers with weights from ``split_at`` on. What it says of k is k or c, filters or input channels: what
        sends less.
    split_at : str, optional
        Where ``model`` begins: the name of a layer, the first Dense when not given, the first layer of all for "".
    layers : tuple of (str, Layout)
        By name, or by a pattern such as "conv*": the first that fits a layer.
    synchronize : bool
        Whether a BatchNorm takes the statistics of all images of a step, not those of its part of the images. Parts of
        an image always share theirs.
    bucket_bytes : int, optional
        The most bytes of gradients that travel together while the backward pass goes on; it changes no bits.
    slices : int or "shard"
        The slices in which a batch goes through the layers from where ``model`` begins.

    Examples
    --------
    >>> from daskconv import plans
    >>> plans.hybrid(4).shards
    4
    """

    name: str
    layout: Layout
    model: Layout | None = None
    split_at: str | None = None
    layers: tuple[tuple[str, Layout], ...] = ()
    synchronize: bool = False
    bucket_bytes: int | None = None
    slices: Slices = 1

    @property
    def shards(self) -> int:
        """The logical shards S: each layout has as many parts, or fewer that divide it."""
        every = (self.layout, *((self.model,) if self.model else ()), *(layout for _, layout in self.layers))
        return lcm(*(layout.shards for layout in every))

    @property
    def splits_images_only(self) -> bool:
        """Whether all layers are split along n into the same parts, and no statistics are shared."""
        return self == Plan(self.name, Layout(n=self.layout.n), bucket_bytes=self.bucket_bytes)

    def layouts(self, network: Network) -> dict[str, tuple[Layout | None, bool]]:
        """Return each layer's Layout, None where it follows what it reads, and whether k may be c."""
        names = [node.name for node in network.nodes]
        known = set(names)
        for pattern, _ in self.layers:
            if pattern not in known and not any(fnmatchcase(name, pattern) for name in names):
                raise InputError(
                    f"The plan {self.name} names {pattern!r}, but the network has the layers {names}."
                )
        found = dict[str, tuple[Layout | None, bool]]()
        if self.model and self.split_at and self.split_at not in names:
            raise InputError(f"split_at is {self.split_at!r}, but the network has the layers {names}.")
        cut = self.cut(network)
        for position, node in enumerate(network.nodes):
            weighs = isinstance(node.layer, Conv2D | Dense)
            named = self._named(node.name)
            if named or self.layers:
                found[node.name] = named, False
            elif position >= cut and self.model:
                found[node.name] = (self.model, True) if weighs else (None, False)
            else:
                found[node.name] = self.layout, False
        return found

    def cut(self, network: Network) -> int:
        """Return the position of the layer where ``model`` begins; after the last where no layer is that."""
        begins = (
            self.split_at in ("", node.name) or (self.split_at is None and isinstance(node.layer, Dense))
            for node in network.nodes
        )
        return next((position for position, begun in enumerate(begins) if begun), len(network.nodes))

    def _named(self, name: str) -> Layout | None:
        """Return the layout of the first pattern that fits a layer; plain names, maybe many, are looked up."""
        plain, patterns = self._rules
        fits = [plain[name]] if name in plain else []
        fits += [rule for rule in patterns if fnmatchcase(name, self.layers[rule[0]][0])]
        return min(fits, key=lambda rule: rule[0])[1] if fits else None

    @cached_property
    def _rules(self) -> tuple[dict[str, tuple[int, Layout]], list[tuple[int, Layout]]]:
        plain: dict[str, tuple[int, Layout]] = {}
        patterns = []
        for at, (pattern, layout) in enumerate(self.layers):
            if set(pattern) & set("*?["):
                patterns.append((at, layout))
            else:
                plain.setdefault(pattern, (at, layout))
        return plain, patterns

    def describe(self, network: Network, input_shape: tuple[int, int, int], batch: int) -> str:
        """Return a table: each layer's layout, what is exchanged before it, bytes a step, and memory of a shard.

        Parameters
        ----------
        network : Network
        input_shape : (h, w, c)
        batch : int
            Images of a step.

        Examples
        --------
        >>> import daskconv
        >>> print(daskconv.plans.hybrid(2).describe(daskconv.zoo.lenet(), (8, 8, 1), 16).splitlines()[0])
        Plan hybrid of lenet: 2 shards, batch 16 of (8, 8, 1)
        """
        from daskconv.plan.describe import describe

        return describe(self, network, input_shape, batch)


def data(shards: int = DEFAULT_SHARDS, *, synchronize: bool = False) -> Plan:
    """Return the data parallel plan: images are split, weights are everywhere.

    Parameters
    ----------
    shards : int
        Parts of the images.
    synchronize : bool
        Whether batch norms take the statistics of all images of a step (SyncBatchNorm of other libraries).
    """
    return Plan("data", Layout(n=check_count(shards, "shards")), synchronize=synchronize)


def model(shards: int = DEFAULT_SHARDS, *, n: int = 1, synchronize: bool = False) -> Plan:
    """Return the model parallel plan: filters or input channels of each layer are split, whichever sends less.

    Parameters
    ----------
    shards : int
        Parts of each layer with weights.
    n : int
        Parts of the images: so many groups of ``shards`` shards.
    synchronize : bool
        As in :func:`data`.
    """
    check_count(n, "n")
    split = Layout(n=n, k=check_count(shards, "shards"))
    return Plan("model", Layout(n=n), split, "", synchronize=synchronize)


def hybrid(
    shards: int = DEFAULT_SHARDS,
    *,
    split_at: str | None = None,
    slices: Slices = 1,
    synchronize: bool = False,
) -> Plan:
    """Return the hybrid plan (Krizhevsky 2014): convolutions data parallel, the dense layers after them model parallel.

    The dense layers take a batch whole, his variant (a), or in slices: while one goes forward and back through them,
    the next travels, and no more than two are there at once. Weights are updated once a step.

    Parameters
    ----------
    shards : int
    split_at : str, optional
        The layer where model parallelism begins; the first Dense when not given.
    slices : int or "shard"
        Slices with an even part of each shard's images (his variant c), or "shard": each has all images of one shard
        (variant b).
    synchronize : bool
        As in :func:`data`.

    Raises
    ------
    InputError
        Where a BatchNorm that learns lies after ``split_at``: the images of a slice do not have its statistics.

    Examples
    --------
    >>> hybrid(4, slices=8).slices
    8
    """
    parts = check_count(shards, "shards")
    if slices != "shard":
        check_count(slices, "slices")
    return Plan("hybrid", Layout(n=parts), Layout(k=parts), split_at, synchronize=synchronize, slices=slices)


def spatial(h: int = 2, w: int = 1, *, n: int = 1, synchronize: bool = False) -> Plan:
    """Return the spatial plan: rows and columns of the images are split, with halos between neighbours.

    Dense layers, which see no rows and columns, are split along k or c into as many parts.

    Parameters
    ----------
    h, w : int
        Parts of the rows and of the columns.
    n : int
        Parts of the images.
    synchronize : bool
        As in :func:`data`; the parts of an image share their statistics in any case.
    """
    parts = {"n": n, "h": h, "w": w}
    for axis, count in parts.items():
        check_count(count, axis)
    dense = Layout(n=n, k=h * w)
    return Plan("spatial", Layout(**parts), dense if h * w > 1 else None, synchronize=synchronize)


PLANS = {"data": data, "model": model, "hybrid": hybrid}

AUTO = "auto"
"""The name of a plan that is chosen once the images, the batch and the workers are known."""


def resolve_plan(plan: str | Plan | Mapping[str, Layout], shards: int | None) -> Plan:
    """Return the plan of a name or of layouts by layer, or the plan that was given."""
    if isinstance(plan, Mapping):
        plan = of_layers(plan)
    if plan == AUTO:
        return Plan(AUTO, Layout(n=1 if shards is None else check_count(shards, "shards")))
    if isinstance(plan, str):
        name, *options = (part.strip() for part in plan.split(","))
        if name in PLANS:
            count = DEFAULT_SHARDS if shards is None else shards
            return hybrid(count, slices=_slices_of(plan, options)) if options else PLANS[name](count)
        plan = _spatial_of(plan)
    if not isinstance(plan, Plan):
        raise InputError(
            f"plan is {plan!r}: give a name, a Plan of daskconv.plans, or a dict of layers and Layouts."
        )
    if shards not in (None, plan.shards):
        raise InputError(f"shards is {shards} but the plan {plan.name} has {plan.shards}: give one of them.")
    return plan


def _slices_of(text: str, options: Sequence[str]) -> Slices:
    """Return the slices of a hybrid plan's text such as "hybrid, slices=8"."""
    said = options[0].removeprefix("slices=")
    if not text.startswith("hybrid") or len(options) > 1 or said == options[0]:
        raise InputError(
            f"plan is {text!r}: of the names only hybrid takes an option, as in 'hybrid, slices=8'."
        )
    return int(said) if said.isdigit() else said  # type: ignore[return-value]


def _spatial_of(text: str) -> Plan:
    """Return the spatial plan of a layout's text such as "n=2, h=2"."""
    try:
        parts = {axis: int(count) for axis, count in (part.strip().split("=") for part in text.split(","))}
    except ValueError:
        parts = {}
    if not parts or not set(parts) <= set("nhw"):
        raise InputError(
            f"plan is {text!r}: give data, model, hybrid, auto, slices such as 'hybrid, slices=8', parts of images, "
            "rows and columns such as 'n=2, h=2', one of daskconv.plans, or a dict of layers and Layouts."
        )
    return spatial(parts.get("h", 1), parts.get("w", 1), n=parts.get("n", 1))


def of_layers(layouts: Mapping[str, Layout]) -> Plan:
    """Return the plan of layouts by layer, or by patterns such as "conv*"; other layers follow what they read."""
    wrong: dict[str, Any] = {
        name: layout for name, layout in layouts.items() if not isinstance(layout, Layout)
    }
    if wrong or not layouts:
        raise InputError(
            f"plan is {dict(layouts)!r}: give a Layout for each layer, such as {{'conv*': Layout(n=4)}}."
        )
    shards = lcm(*(layout.shards for layout in layouts.values()))
    return replace(Plan("by layer", Layout(n=shards)), layers=tuple(layouts.items()))
