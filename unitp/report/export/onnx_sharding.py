"""ONNX's multi-device annotations (IR 11): a ModelProto whose nodes say over which devices each tensor is sharded.

A dim of N rows in M shards has N % M = 0 and N/M rows in each. Device numbers are ranks, in the order of the shards (row-major over
the sharded dims); a negative number stands for a group of ranks that hold the same shard. Sizes are those of a phase.

Weights are left out: they are inputs of the graph, by name. (`onnx.checker` refuses initialisers without data, and external
ones without their file.) States are pairs of an input and an output.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Any

import msgspec

from unitp.errors import InputError
from unitp.graph.graph import Graph
from unitp.graph.ops import layouts, operator, rule_of
from unitp.graph.stored import widening
from unitp.graph.values import STORED, Attribute, Dim, Node, TensorType
from unitp.layout import Layout, Split, cuts
from unitp.mesh import Mesh
from unitp.plans import PhasePlan, Plan
from unitp.report.export import Export, Lost

OPSET, IR, CONFIGURATION = 24, 11, "unitp"
LIMITS = (
    "names of axes: the file has only numbers of ranks",
    "collectives: if a node requires another sharding than the one produced, a reader must derive the conversion",
    "phases: the file has one set of sizes",
    "predicted costs and the certificate",
)


def write(plan: Plan, graph: Graph, phase: PhasePlan, *, python: bool) -> Export:
    """Return the annotated model, serialised. Raises InputError if the package onnx is not installed."""
    made = _Model(plan, graph, phase)
    return Export(made.model().SerializeToString(), tuple(dict.fromkeys(made.lost)), LIMITS)


class _Model:
    """One pass over the graph, with the sizes of a phase bound."""

    def __init__(self, plan: Plan, graph: Graph, phase: PhasePlan) -> None:
        try:
            import onnx
        except ImportError:
            raise InputError("package onnx is not installed", hint='Run: pip install "onnx>=1.19"') from None
        self.onnx, self.plan, self.graph, self.phase = onnx, plan, graph, phase
        self.mesh: Mesh = plan.mesh
        self.sizes: Mapping[str, int] = phase.phase.sizes
        self.lost: list[Lost] = []
        self.constants: list[Any] = []
        self.widened: dict[str, TensorType] = {}
        """The weights of 16 bits that a Cast widens, by the names of its results."""

    def model(self) -> Any:
        h, g = self.onnx.helper, self.graph
        nodes = [made for node in g.nodes for made in self.nodes(node)]
        given = [*g.inputs, *(p.name for p in g.parameters), *(s.input for s in g.states)]
        left = [*g.outputs, *(s.output for s in g.states)]
        made = h.make_graph(nodes, g.name, [self.info(n) for n in given], [self.info(n) for n in left], self.constants)
        model = h.make_model(made, opset_imports=[h.make_opsetid("", OPSET)], ir_version=IR, producer_name="unitp")
        model.configuration.add(name=CONFIGURATION, num_devices=self.mesh.size)
        h.set_model_props(
            model, {"unitp.mesh": str(self.mesh), "unitp.graph": self.plan.graph, "unitp.phase": self.phase.phase.name}
        )
        return model

    def shape(self, type_: TensorType) -> tuple[int, ...]:
        return tuple(self.size(d) for d in type_.shape)

    def size(self, dim: Dim) -> int:
        return self.sizes[dim] if isinstance(dim, str) else dim

    def info(self, name: str) -> Any:
        type_ = self.graph.types[name]
        return self.onnx.helper.make_tensor_value_info(name, self.kind(type_.dtype), self.shape(type_))

    def kind(self, dtype: str) -> int:
        import numpy as np

        if dtype in STORED:
            return int(self.onnx.TensorProto.DataType.Value(dtype.upper()))
        return int(self.onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))

    def nodes(self, node: Node) -> Iterator[Any]:
        """Yield a node in ONNX's form, with the shardings of its inputs and outputs.

        ONNX multiplies numbers of one type, so a weight of 16 bits is widened by a Cast before its first reader.
        """
        attrs = {key: self.bound(value) for key, value in node.attrs.items()}
        concrete = msgspec.structs.replace(node, attrs=attrs)
        plain: dict[str, Any] = dict(attrs)
        inputs = list(node.inputs)
        for key in operator(node.op).constants:
            if key in plain:
                inputs.append(self.constant(f"{node.name}.{key}", plain.pop(key)))
        if "to" in plain:
            plain["to"] = self.kind(plain["to"])
        placed, wide = dict(self.placed(concrete)), ""
        place = operator(node.op).stored
        if place is not None and self.graph.types[narrow := inputs[place]].dtype in STORED:
            wide = inputs[place] = f"{narrow}.float32"
            placed = {wide if name == narrow else name: layout for name, layout in placed.items()}
            if wide not in self.widened:
                self.widened[wide] = self.graph.types[narrow]
                cast, at = widening(narrow, wide), dict.fromkeys((narrow, wide), placed[wide])
                yield self.annotated(cast.op, cast.inputs, cast.outputs, wide, {"to": self.kind("float32")}, at)
        yield self.annotated(node.op, inputs, node.outputs, node.name, plain, placed)

    def annotated(
        self,
        op: str,
        inputs: Sequence[str],
        outputs: Sequence[str],
        name: str,
        attrs: Mapping[str, Any],
        placed: Mapping[str, Layout],
    ) -> Any:
        """Return a node of ONNX with the layouts of its inputs and outputs."""
        made = self.onnx.helper.make_node(op, inputs, outputs, name=name, **attrs)
        about = made.device_configurations.add(configuration_id=CONFIGURATION)
        for value, layout in placed.items():
            self.annotate(about, value, layout)
        return made

    def bound(self, value: Attribute) -> Attribute:
        if isinstance(value, tuple):
            return tuple(self.size(v) for v in value)
        return self.sizes.get(value, value) if isinstance(value, str) else value

    def constant(self, name: str, value: Any) -> str:
        numbers = [value] if isinstance(value, int) else list(value)
        self.constants.append(self.onnx.helper.make_tensor(name, self.onnx.TensorProto.INT64, [len(numbers)], numbers))
        return name

    def placed(self, node: Node) -> Iterator[tuple[str, Layout]]:
        """Yield the layouts of a node's inputs and outputs, each tensor once (if a node reads one in two layouts, the first)."""
        shapes = [self.shape(self.graph.types[n]) if n else None for n in node.inputs]
        rule = rule_of(node.op, node.attrs, shapes)
        planned = self.phase.nodes.get(node.name, {})
        splits = {f: split.bind(int(rule.factors[f].size), self.mesh) for f, split in planned.items()}
        required, produced = layouts(rule, splits)
        seen: dict[str, Layout] = {}
        for name, layout in zip((*node.inputs, *node.outputs), (*required, *produced), strict=True):
            if name and layout is not None and seen.setdefault(name, layout) == layout:
                yield name, layout
            elif name and layout is not None:
                self.lost.append(Lost(name, f"{node.op} reads it in two layouts, the second of which is left out"))

    def annotate(self, about: Any, name: str, layout: Layout) -> None:
        """Add one ShardingSpecProto. A split that ONNX cannot express is left out: the tensor is then whole along that dim."""
        shape = self.shape(self.widened.get(name) or self.graph.types[name])
        if layout.partial:
            self.lost.append(Lost(name, f"it is {layout.pending}; it is annotated as reduced"))
        kept: dict[int, Split] = {}
        for dim, split in enumerate(layout.dims):
            if split is not None and not (why := _misfit(split, shape[dim], self.mesh)):
                kept[dim] = split
            elif split is not None:
                self.lost.append(Lost(name, f"dim {dim} is {why}; it is annotated as whole"))
        spec = about.sharding_spec.add(tensor_name=name)
        for dim, split in kept.items():
            sharded = spec.sharded_dim.add(axis=dim)
            sharded.simple_sharding.add(dim_value=shape[dim], num_shards=self.mesh.count(split.axes))
        for number, ranks in enumerate(shards(list(kept.values()), self.mesh)):
            if len(ranks) == 1:
                spec.device.append(ranks[0])
            else:
                spec.device.append(-1 - number)
                spec.index_to_device_group_map.add(key=-1 - number, value=ranks)


def shards(splits: Sequence[Split], mesh: Mesh) -> list[list[int]]:
    """Return the ranks that hold each shard, row-major over the splits; without splits, one shard that all ranks hold."""
    found: dict[tuple[int, ...], list[int]] = {
        place: [] for place in product(*(range(mesh.count(s.axes)) for s in splits))
    }
    for rank in range(mesh.size):
        found[tuple(mesh.flat(rank, s.axes) for s in splits)].append(rank)
    return list(found.values())


def _misfit(split: Split, size: int, mesh: Mesh) -> str:
    """Return why ONNX cannot express a split, or "" if it can."""
    count = mesh.count(split.axes)
    if split.overlaps:
        return f"held by several ranks at once ({split.rows})"
    if size % count or split.intervals != cuts(count, size):
        return f"split unevenly ({split.rows})"
    return ""
