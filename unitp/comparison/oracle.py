"""What is right: NumPy on one rank, in float64, and how far the same in float32 is from it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import msgspec
import numpy as np

from unitp.comparison.metrics import POSITIONS, Array, relative_error
from unitp.errors import InputError
from unitp.frontends.model import Model
from unitp.mesh import Mesh
from unitp.planner import default_phases
from unitp.plans import Plan, unsplit
from unitp.session.launch import launch


class Oracle(msgspec.Struct, frozen=True):
    """`outputs` in float64, and the error of each in unsharded float32. For a language model also `sequences`, the token ids
    over which logits are judged, and `tokens`, the greedy continuation of each prompt.
    """

    outputs: dict[str, Array]
    errors: dict[str, float]
    sequences: list[list[int]] = []
    tokens: list[list[int]] = []


def one_rank(model: Model) -> Plan:
    return unsplit(model.graph, default_phases(model.graph, Mesh()))


def of_prompts(
    model: Model,
    prompts: Sequence[Sequence[int]],
    new_tokens: int,
    context: int | None,
    options: Mapping[str, Any] = MappingProxyType({}),
) -> Oracle:
    """Greedy continuations, and the logits of every position of prompt and continuation: at least 64 of them in all."""
    longest = max(len(p) for p in prompts)
    length = max(longest + new_tokens, POSITIONS)
    if context is not None and length > context:
        raise InputError(f"{length} positions are compared, the context is {context}", hint="Give a larger --context.")
    plan = one_rank(model)
    sequences, tokens = [], []
    with launch(model, plan, "numpy", dtype="float64", context=context, **options) as session:
        for prompt in prompts:
            more = [int(t) for t in session.generate(prompt, length - len(prompt), ignore_eos=True)]
            tokens.append(_until(session.stop_ids, more[:new_tokens]))
            sequences.append([*prompt, *more])
        outputs = {"logits": np.concatenate([session.run(input_ids=[s])["logits"] for s in sequences])}
    with launch(model, plan, "numpy", dtype="float32", context=context, **options) as session:
        single = np.concatenate([session.run(input_ids=[s])["logits"] for s in sequences])
    return Oracle(outputs, {"logits": relative_error(single, outputs["logits"])}, sequences, tokens)


def _until(stop_ids: Iterable[int], tokens: list[int]) -> list[int]:
    """Tokens up to the first that ends a text, which is among them."""
    ends = [place for place, token in enumerate(tokens, 1) if token in stop_ids]
    return tokens[: ends[0]] if ends else tokens


def of_inputs(model: Model, inputs: Mapping[str, Array], options: Mapping[str, Any] = MappingProxyType({})) -> Oracle:
    """All outputs of a graph for these inputs."""
    plan = one_rank(model)
    with launch(model, plan, "numpy", dtype="float64", **options) as session:
        outputs = session.run(inputs)
    with launch(model, plan, "numpy", dtype="float32", **options) as session:
        single = session.run(inputs)
    return Oracle(outputs, {name: relative_error(single[name], outputs[name]) for name in outputs})
