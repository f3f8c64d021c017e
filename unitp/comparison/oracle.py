"""The oracle: the outputs of NumPy on one rank in float64, and the error of the same run in float32."""

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
    """The reference that results are judged by.

    outputs     in float64
    errors      the relative error of each output in unsharded float32
    sequences   for a language model, the token ids over which logits are judged
    tokens      for a language model, the greedy continuation of each prompt
    """

    outputs: dict[str, Array]
    errors: dict[str, float]
    sequences: list[list[int]] = []
    tokens: list[list[int]] = []


def one_rank(model: Model) -> Plan:
    """Return the plan that runs a model on one rank."""
    return unsplit(model.graph, default_phases(model.graph, Mesh()))


def of_prompts(
    model: Model,
    prompts: Sequence[Sequence[int]],
    new_tokens: int,
    context: int | None,
    options: Mapping[str, Any] = MappingProxyType({}),
) -> Oracle:
    """Return the oracle for prompts: greedy continuations, and the logits of every position of prompt and continuation.

    Each sequence has at least 64 positions. Raises InputError if that exceeds `context`.
    """
    longest = max(len(p) for p in prompts)
    length = max(longest + new_tokens, POSITIONS)
    if context is not None and length > context:
        raise InputError(
            f"{length} positions are compared, but the context is {context}", hint="Give a larger --context."
        )
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
    """Return the tokens up to and including the first that ends a text."""
    ends = [place for place, token in enumerate(tokens, 1) if token in stop_ids]
    return tokens[: ends[0]] if ends else tokens


def of_inputs(model: Model, inputs: Mapping[str, Array], options: Mapping[str, Any] = MappingProxyType({})) -> Oracle:
    """Return the oracle for inputs: all outputs of a graph."""
    plan = one_rank(model)
    with launch(model, plan, "numpy", dtype="float64", **options) as session:
        outputs = session.run(inputs)
    with launch(model, plan, "numpy", dtype="float32", **options) as session:
        single = session.run(inputs)
    return Oracle(outputs, {name: relative_error(single[name], outputs[name]) for name in outputs})
