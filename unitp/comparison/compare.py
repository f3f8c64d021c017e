"""Running one plan on several backends, one after the other, and judging each against the oracle.

The rules are those of `unitp.comparison.metrics`. A backend that fails is an error, not a verdict.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import msgspec
import numpy as np

from unitp.comparison.metrics import Array, bound, first_difference, margin, max_abs_error, relative_error
from unitp.comparison.oracle import Oracle, of_inputs, of_prompts
from unitp.config import settings
from unitp.errors import InputError
from unitp.frontends.model import Model
from unitp.frontends.tokenizer import IdStreams
from unitp.graph.graph import Graph
from unitp.graph.stored import as_planned
from unitp.plans import Plan
from unitp.plugins.discover import backend as find_backend
from unitp.session.capacity import enough_for
from unitp.session.decoder import require_prompts
from unitp.session.launch import check, launch
from unitp.session.session import Session

Say = Callable[[str], None]
LaunchOptions = Callable[[str], Mapping[str, Any]]


class Verdict(msgspec.Struct, frozen=True):
    """The result of one backend.

    transport, runtime        what carried the collectives, and the runtime that this is; no transport where one rank is alone
    relative_error, bound     the error of the outputs, and the largest one allowed (`unitp.comparison.metrics`)
    close_calls               prompts whose tokens differ first at a position where the oracle's two best logits are too close to tell
    collective_share          the part of the time that the first rank spent in collectives
    memory_bytes              the bytes that each rank uses, without those of an idle process
    reasons                   why it disagrees
    """

    backend: str
    transport: str
    runtime: str
    verdict: Literal["agrees", "disagrees"]
    relative_error: float
    max_abs_error: float
    bound: float
    tokens_equal: bool
    close_calls: int = 0
    tokens: list[list[int]] = []
    texts: list[str] = []
    prefill_tokens_per_s: float = 0.0
    decode_tokens_per_s: float = 0.0
    collective_share: float = 0.0
    collectives: int = 0
    memory_bytes: list[int] = []
    reasons: list[str] = []


class Comparison(msgspec.Struct, frozen=True):
    """The verdicts on all backends, by name. `unsharded_error`: the error of NumPy float32 on one rank."""

    model: str
    mesh: str
    dtype: str
    unsharded_error: float
    backends: dict[str, Verdict]

    @property
    def agree(self) -> bool:
        """Whether every backend agrees with the oracle."""
        return all(v.verdict == "agrees" for v in self.backends.values())

    def __str__(self) -> str:
        lines = [f"{self.model} on {self.mesh}, {self.dtype}: error against NumPy float64, unsharded"]
        for name, v in self.backends.items():
            tokens = "tokens equal" if v.tokens_equal else "tokens differ"
            lines.append(f"  {name:11} {v.verdict:9}  {v.relative_error:.1e} of {v.bound:.1e}  {tokens}  ({v.runtime})")
            lines += [f"    {reason}" for reason in v.reasons]
        return "\n".join(lines)


def compare(
    model: Model | Graph,
    plan: Plan,
    backends: Sequence[str],
    *,
    prompt: str | Sequence[str] | None = None,
    prompt_ids: Sequence[Sequence[int]] | None = None,
    inputs: Mapping[str, Array] | None = None,
    dtype: str = "float32",
    max_new_tokens: int = 32,
    context: int | None = None,
    say: Say = lambda text: None,
    launch_options: LaunchOptions = lambda name: {},
) -> Comparison:
    """Run `plan` on each of `backends` and judge it against the oracle.

    prompt, prompt_ids   for a language model: texts or token ids, at least as many as the size of axis `dp`
    inputs               for another graph: arrays by name
    say                  is called with the progress
    launch_options       called with the name of a backend ("numpy" for the oracle); returns options of `launch` (`threads`, ...)

    Raises InputError if an argument is missing. Raises, before anything starts, if a backend is unknown, its framework is missing,
    or it cannot run this plan.
    """
    model = model if isinstance(model, Model) else Model(model.name, model)
    model = dataclasses.replace(model, graph=as_planned(model.graph, plan.graph))
    if not backends:
        raise InputError("no backend is named to compare", hint="Give at least one --backend.")
    options = {name: _options(launch_options(name)) for name in backends}
    for name in backends:
        chosen = {key: options[name][key] for key in ("python", "threads", "transport") if key in options[name]}
        check(model.graph, plan, find_backend(name), dtype=dtype, context=context, **chosen)
    reference = {**launch_options("numpy"), "transport": "native"}
    say("oracle: NumPy float64 and float32 on one rank")
    if model.decoder is None:
        if inputs is None:
            raise InputError(f"{model.name} is not a language model: give its inputs")
        oracle = of_inputs(model, inputs, reference)
        judged = {
            n: _on_inputs(_start(model, plan, n, dtype, None, say, options[n]), oracle, inputs, dtype) for n in backends
        }
    else:
        prompts = _prompts(model, prompt, prompt_ids)
        require_prompts(len(prompts), plan.mesh)
        oracle = of_prompts(model, prompts, max_new_tokens, context, reference)
        judged = {}
        for name in backends:
            several = {"sequences": enough_for(len(prompts)), **options[name]}
            session = _start(model, plan, name, dtype, context, say, several)
            judged[name] = _on_prompts(session, model, oracle, prompts, dtype, max_new_tokens)
    worst = max(oracle.errors.values(), default=0.0)
    return Comparison(model.name, str(plan.mesh), dtype, worst, judged)


def _options(given: Mapping[str, Any]) -> dict[str, Any]:
    """Options of `launch`. Where no transport is asked for, it is the frameworks' own: the verdict is about them."""
    chosen = settings()["transport"]
    default = "native" if chosen.origin == "default" else str(chosen.value)
    return {**given, "transport": given.get("transport") or default}


def _start(
    model: Model, plan: Plan, name: str, dtype: str, context: int | None, say: Say, options: Mapping[str, Any]
) -> Session:
    return launch(model, plan, name, dtype=dtype, context=context, say=lambda text: say(f"{name}: {text}"), **options)


def _prompts(model: Model, prompt: str | Sequence[str] | None, ids: Sequence[Sequence[int]] | None) -> list[list[int]]:
    if ids is not None:
        return [list(i) for i in ids]
    texts = [prompt] if isinstance(prompt, str) else list(prompt or ())
    if not texts:
        raise InputError("no prompt is given", hint="Give --prompt or --prompt-ids.")
    return [model.tokenizer.encode(text) for text in texts]


def _on_prompts(
    session: Session, model: Model, oracle: Oracle, prompts: list[list[int]], dtype: str, new_tokens: int
) -> Verdict:
    with session:
        logits = session.run(input_ids=np.array(oracle.sequences))["logits"]
        for _ in session.generation(prompts, 2, ignore_eos=True):
            pass  # a framework's work for each new shape is not counted as speed
        before = session.stats()[0].collective_s
        generation = session.generation(prompts, new_tokens)
        for _ in generation:
            pass
        timing, stats = generation.timing, session.stats()[0]
        memory = [m.now - m.idle for m in session.memory()]
    allowed = bound(dtype, oracle.errors["logits"])
    judged, reasons = _judge({"logits": logits}, oracle, dtype)
    calls = [_close_call(oracle, row, prompt, generation.tokens[row], allowed) for row, prompt in enumerate(prompts)]
    reasons += [reason for reason, _ in calls if reason]
    elapsed = timing.prefill_s + timing.decode_s
    return msgspec.structs.replace(
        _verdict(session, judged, allowed, reasons),
        tokens_equal=generation.tokens == oracle.tokens,
        close_calls=sum(close for _, close in calls),
        tokens=generation.tokens,
        texts=_texts(model, generation.tokens),
        prefill_tokens_per_s=timing.prefill_tokens_per_s,
        decode_tokens_per_s=timing.decode_tokens_per_s,
        collective_share=(stats.collective_s - before) / elapsed if elapsed else 0.0,
        collectives=stats.collectives,
        memory_bytes=memory,
    )


def _texts(model: Model, tokens: list[list[int]]) -> list[str]:
    """Return the text of each continuation, as `unitp generate` shows it; none if the model has no known tokenizer."""
    if isinstance(speller := model.speller, IdStreams):
        return []
    streams = [speller.stream() for _ in tokens]
    return ["".join([*map(s.add, made), s.end()]) for s, made in zip(streams, tokens, strict=True)]


def _close_call(oracle: Oracle, row: int, prompt: list[int], tokens: list[int], allowed: float) -> tuple[str, bool]:
    """Return why the tokens of a prompt are wrong ("" if they are not), and whether they differ from the oracle's at a close call."""
    place = first_difference(tokens, oracle.tokens[row])
    if place is None:
        return "", False
    gap, closes = margin(oracle.outputs["logits"][row, len(prompt) + place - 1], allowed)
    if gap <= closes:
        return "", True
    apart = f"the oracle's two best logits are {gap:.1e} apart, but an error can explain only {closes:.1e}"
    return f"prompt {row}: token {place} differs; {apart}", False


def _on_inputs(session: Session, oracle: Oracle, inputs: Mapping[str, Array], dtype: str) -> Verdict:
    with session:
        outputs = session.run(inputs)
        memory = [m.now - m.idle for m in session.memory()]
    judged, reasons = _judge(outputs, oracle, dtype)
    allowed = bound(dtype, max(oracle.errors.values(), default=0.0))
    return msgspec.structs.replace(_verdict(session, judged, allowed, reasons), memory_bytes=memory)


def _judge(outputs: Mapping[str, Array], oracle: Oracle, dtype: str) -> tuple[tuple[float, float], list[str]]:
    """Return the largest errors over all outputs (relative, absolute), and what is wrong with any of them."""
    worst, largest, reasons = 0.0, 0.0, []
    for name, right in oracle.outputs.items():
        if right.dtype.kind != "f":
            if not np.array_equal(outputs[name], right):
                reasons.append(f"{name} ({right.dtype}) must be equal to the oracle's and is not")
            continue
        error, allowed = relative_error(outputs[name], right), bound(dtype, oracle.errors[name])
        worst, largest = max(worst, error), max(largest, max_abs_error(outputs[name], right))
        if not np.isfinite(allowed):
            reasons.append(f"{name} overflows in unsharded float32, so its error has no bound: compare in float64")
        elif not error <= allowed:
            reasons.append(f"{name} has error {error:.1e}, but at most {allowed:.1e} is allowed")
    return (worst, largest), reasons


def _verdict(session: Session, errors: tuple[float, float], allowed: float, reasons: list[str]) -> Verdict:
    return Verdict(
        backend=session.spec.name,
        transport=session.transport,
        runtime=session.runtime,
        verdict="disagrees" if reasons else "agrees",
        relative_error=errors[0],
        max_abs_error=errors[1],
        bound=allowed,
        tokens_equal=True,
        reasons=reasons,
    )


def as_json(comparison: Comparison) -> dict[str, Any]:
    """Return a comparison as plain data for JSON."""
    found: dict[str, Any] = msgspec.to_builtins(comparison)
    return {**found, "agree": comparison.agree}
