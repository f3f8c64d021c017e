"""The `tp_plan` of a transformers model: patterns of module names (layer numbers are *), each with a style.

    replicate                                       weights are whole
    colwise, then rowwise                           rows split, then columns: one sum after both (q k v, o; gate up, down)
    colwise_gather_output, rowwise_split_input      rows or columns split, activations whole before and after
    embedding_rowwise, embedding_colwise            the vocabulary split, or the width

A plan that is given to transformers overrides its own rule by rule, so modules that are not split are listed as well. Styles split
as DTensor does (see `dtensor`), over one axis, alike in all layers, and heads by whole KV groups. Anything that the plan splits
differently is `replicate` here. Source: transformers.distributed.tensor_parallel, transformers 5.23.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping

import msgspec

from unitp.errors import PlanError
from unitp.frontends.huggingface_weights import spelled
from unitp.graph.graph import Graph
from unitp.graph.ops import operator
from unitp.layout import Layout
from unitp.plans import PhasePlan, Plan
from unitp.report.export import Export, Lost
from unitp.report.export.dtensor import misfit
from unitp.report.export.names import spellable, stored
from unitp.texts import literal, shown

LIMITS = (
    "activations split between blocks (sequence, batch), and KV caches: they follow from the styles",
    "collectives: they follow from the styles",
    "phases: a module has one style for all of them",
    "axes other than tp: transformers has its own settings for data parallelism",
)
EMBEDDING, HEAD = "model.embed_tokens", "lm_head"
LAYER = "model.layers.*."
ATTENTION = (tuple(f"{LAYER}self_attn.{n}_proj" for n in "qkv"), f"{LAYER}self_attn.o_proj")
MLP = (tuple(f"{LAYER}mlp.{n}_proj" for n in ("gate", "up")), f"{LAYER}mlp.down_proj")
LINEAR = {None: "replicate", 0: "colwise_gather_output", 1: "rowwise_split_input"}
LOOKUP = {None: "replicate", 0: "embedding_rowwise", 1: "embedding_colwise"}

Cut = int | None
"""The dim of a weight that is split, or None if it is not split."""


def write(plan: Plan, graph: Graph, phase: PhasePlan, *, python: bool) -> Export:
    """Return the plan as JSON, or as a Python module. Raises PlanError if the model is not a Llama-type decoder, or has experts."""
    if not spellable(graph):
        raise PlanError(
            f"{graph.name} is not a Llama-type decoder of plain layers, the only models with a known tp_plan",
            hint="Export it --to dtensor.",
        )
    made = _TpPlan(plan, graph)
    styles = made.styles()
    if python:
        text = _python(plan, styles, made.lost)
    else:
        text = msgspec.json.format(msgspec.json.encode(styles), indent=1) + b"\n"
    return Export(text, tuple(made.lost), LIMITS)


class _TpPlan:
    """Derives the styles of modules. `tensors`: the parameters for each pattern of Hugging Face's names."""

    def __init__(self, plan: Plan, graph: Graph) -> None:
        self.plan, self.graph, self.lost = plan, graph, list[Lost]()
        self.tensors: dict[str, list[str]] = {}
        for name in stored(graph):
            self.tensors.setdefault(re.sub(r"\.\d+\.", ".*.", spelled(name)), []).append(name)
        uses = Counter(a for n in stored(graph) for a in plan.parameters[n].axes)
        self.axis = uses.most_common(1)[0][0] if uses else "tp"

    def styles(self) -> dict[str, str]:
        cuts = {
            pattern.removesuffix(".weight"): self.cut(pattern) for pattern in self.tensors if pattern.endswith("weight")
        }
        modules = [module for module in cuts if not module.endswith("norm")]
        found = {module: LINEAR[cuts[module]] for module in modules}
        found[EMBEDDING] = LOOKUP[cuts[EMBEDDING]]
        found.setdefault(HEAD, LINEAR[cuts[EMBEDDING]])  # tied: the same tensor once more
        for producers, consumer in (ATTENTION, MLP):
            found |= dict(self.block(producers, consumer, cuts))
        for module in cuts:
            if module.endswith("norm") and cuts[module] is not None:
                self.lose(f"{module}.weight", "transformers does not split norms; every rank holds all of it")
        for module in modules:
            self.bias(module, cuts[module])
        return {module: found[module] for module in (*modules, *found) if module in found}

    def lose(self, pattern: str, why: str) -> None:
        self.lost += [Lost(spelled(name), why) for name in self.tensors[pattern]]

    def cut(self, pattern: str) -> Cut:
        """Return the dim that the plan splits in all tensors of a pattern, if transformers can split it so."""
        layouts = {name: self.plan.parameters[name] for name in self.tensors[pattern]}
        if len(set(layouts.values())) > 1:
            self.lose(pattern, "layers differ, but a pattern stands for all of them; every rank holds all of it")
            return None
        name, layout = next(iter(layouts.items()))
        if other := [axis for axis in layout.axes if axis != self.axis]:
            self.lose(pattern, f"it is split over {', '.join(other)}, not only {self.axis}; every rank holds all of it")
            return None
        shape = tuple(int(d) for d in self.graph.parameter(name).type.shape)
        if why := misfit(shape, layout, self.plan.mesh):
            self.lose(pattern, f"{why.replace('DTensor', 'transformers')}; every rank holds all of it")
            return None
        return _split_dim(layout)

    def block(self, producers: tuple[str, ...], consumer: str, cuts: Mapping[str, Cut]) -> Iterator[tuple[str, str]]:
        """Yield the styles of the projections of a block: colwise and rowwise with split activations between, or whole ones."""
        whole = {m: LINEAR[cuts[m]] for m in (*producers, consumer)}
        if [cuts[m] for m in producers] == [0] * len(producers) and cuts[consumer] == 1:
            why = self.split_heads() if producers == ATTENTION[0] else ""
            if not why:
                yield from ((m, "colwise") for m in producers)
                yield consumer, "rowwise"
                return
            for module in producers:
                self.lose(f"{module}.weight", f"{why}; its output is gathered")
        elif any(cuts[m] is not None for m in (*producers, consumer)):
            through = f"{', '.join(m.rpartition('.')[2] for m in (*producers, consumer))} are not split by rows, then by columns"
            for module, style in whole.items():
                if style != "replicate":
                    about = "its output is gathered" if cuts[module] == 0 else "its input is whole"
                    self.lose(f"{module}.weight", f"{through}; {about}")
        yield from whole.items()

    def split_heads(self) -> str:
        """Return why transformers cannot split attention as the plan does, or "" if it can."""
        attention = next(n for n in self.graph.nodes if operator(n.op).kind == "attention")
        groups = int(self.graph.types[attention.inputs[1]].shape[1])
        ranks = self.plan.mesh.sizes.get(self.axis, 1)
        return f"{groups} KV heads do not divide over {ranks} ranks" if groups % ranks else ""

    def bias(self, module: str, cut: Cut) -> None:
        """Note a loss if the plan holds a module's bias differently from the style: split with the rows, else whole."""
        pattern = f"{module}.bias"
        if pattern not in self.tensors or (found := self.cut(pattern)) == (0 if cut == 0 else None):
            return
        self.lose(
            pattern, f"the plan {'does not split' if found is None else 'splits'} it, unlike the style of its module"
        )


def _split_dim(layout: Layout) -> Cut:
    return next((dim for dim, split in enumerate(layout.dims) if split is not None), None)


def _python(plan: Plan, styles: Mapping[str, str], lost: list[Lost]) -> bytes:
    reasons = {
        re.sub(r"\.\d+\.", ".*.", one.what).removesuffix(".weight").removesuffix(".bias"): one.why for one in lost
    }
    about = (
        f"How transformers splits {plan.model or 'a model'} over {plan.mesh}, as unitp planned it (graph {plan.graph})."
    )
    lines = [
        literal(about),
        "",
        "TP_PLAN = {",
    ]
    for module, style in styles.items():
        lines += [f"    # {shown(reasons[module])}"] if module in reasons else []
        lines.append(f"    {literal(module)}: {literal(style)},")
    usage = "AutoModelForCausalLM.from_pretrained(name, distributed_config=DistributedConfig(tp_plan=TP_PLAN))"
    return "\n".join([*lines, "}", literal(usage), ""]).encode()
