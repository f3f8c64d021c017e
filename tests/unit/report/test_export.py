"""Plans in the words of other tools: what they say is what was planned, and what they cannot say is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import unitp
from unitp import cli, plan_file
from unitp.certificate import CertifiedPlan, certified
from unitp.comparison.metrics import relative_error
from unitp.cost import Machine
from unitp.errors import InputError, PlanError
from unitp.frontends.configs import known_config
from unitp.frontends.llama import LlamaConfig
from unitp.graph.graph import Graph
from unitp.graph.ops import layouts, rule_of
from unitp.graph.stored import stored
from unitp.graph.values import STORED
from unitp.graph.weights import read, shape_of
from unitp.layout import Layout, Split, cuts
from unitp.mesh import Mesh
from unitp.planner import Request, plan
from unitp.plans import Phase, Plan, unsplit
from unitp.report.export import Export, export, grouped
from unitp.report.export.dtensor import chunked, misfit, placements
from unitp.testing.models import EVEN, TINY, mlp, tiny, write_huggingface
from unitp.testing.random_plans import random_plan

MACHINE = Machine(call_s=1e-7, link_latency_s=1e-8, operator_s=0.0, link_bytes_per_s=1e10, flops_per_s=1e9)
"""Communication that is cheap, but not free: small models are split as large ones are, rows first, then columns."""

SIZES = {"batch": 4, "seq": 4, "cache": 8, "live": 8, "take": 1, "candidates": 2}
BIASED = msgspec.structs.replace(EVEN, qkv_bias=True, tied=True)


def graph_of(config: LlamaConfig) -> Graph:
    return tiny(config).graph


def planned(graph: Graph, **axes: int) -> CertifiedPlan:
    return plan(Request(graph, Mesh(**axes), machine=MACHINE))


def by_heads(graph: Graph, config: LlamaConfig, ranks: int) -> Plan:
    """Megatron's layout of the parameters, with query heads cut as evenly as may be and the KV heads that they read."""

    def rows(cut: tuple[tuple[int, int], ...], each: int) -> Split:
        return Split(("tp",), tuple((a * each, b * each) for a, b in cut))

    ratio, heads = config.heads // config.kv_heads, cuts(ranks, config.heads)
    queries = rows(heads, config.head_dim)
    groups = rows(tuple((a // ratio, -(-b // ratio)) for a, b in heads), config.head_dim)
    hidden, vocab = (Split(("tp",), cuts(ranks, n)) for n in (config.hidden, config.vocab))
    first = {"attn_q": queries, "attn_k": groups, "attn_v": groups, "ffn_gate": hidden, "ffn_up": hidden}
    first |= {"token_embd": vocab, "output": vocab}
    last = {"attn_output": queries, "ffn_down": hidden}
    made = unsplit(graph, [Phase("main", SIZES)])
    parameters = dict(made.parameters)
    for name in parameters:
        part = name.split(".")[-2] if "." in name else ""
        if part in first:
            parameters[name] = Layout((first[part], None)[: 1 if name.endswith("bias") else 2])
        elif part in last:
            parameters[name] = Layout((None, last[part]))
    return msgspec.structs.replace(made, mesh=Mesh(tp=ranks), parameters=parameters)


def reasons(made: Export) -> dict[str, str]:
    return {group.what: group.why for group in grouped(made.lost)}


# dtensor


@settings(deadline=None)
@given(size=st.integers(1, 40), first=st.integers(1, 4), second=st.integers(1, 4))
def test_chunks_are_those_of_torch(size: int, first: int, second: int) -> None:
    torch = pytest.importorskip("torch")
    mesh = Mesh(a=first, b=second)
    layout = Layout((Split(("a", "b"), cuts(first * second, size)),))
    rows = torch.arange(size)
    for rank in range(mesh.size):
        coords, held = mesh.coords(rank), rows
        for axis, count in mesh.axes:
            pieces = torch.chunk(held, count) if len(held) else ()
            held = pieces[coords[axis]] if coords[axis] < len(pieces) else held[:0]
        ((start, stop),) = chunked((size,), layout, rank, mesh)
        assert list(range(start, stop)) == held.tolist()


@pytest.mark.parametrize(
    "intervals,size,why",
    [
        (((0, 4), (4, 8)), 8, ""),
        (((0, 5), (5, 9)), 9, ""),
        (((0, 40), (40, 72)), 72, "dim 0 is split 0:40 40:72, but DTensor would split it 0:36 36:72"),
        (((0, 2), (1, 3)), 3, "several ranks hold the same rows of dim 0 (0:2 1:3)"),
        (((0, 3), (3, 3)), 3, "dim 0 is split 0:3 3:3, but DTensor would split it 0:2 2:3"),
    ],
)
def test_what_dtensor_cannot_hold_is_said(intervals: Any, size: int, why: str) -> None:
    assert misfit((size, 4), Layout((Split(("tp",), intervals), None)), Mesh(tp=2)) == why


def test_axes_that_share_a_dim_have_to_be_in_the_order_of_the_mesh() -> None:
    mesh, eight = Mesh(a=2, b=2), cuts(4, 8)
    assert misfit((8,), Layout((Split(("a", "b"), eight),)), mesh) == ""
    assert "would split it" in misfit((8,), Layout((Split(("b", "a"), eight),)), mesh)
    assert placements(Layout((None, Split(("b",), cuts(2, 8)))), mesh) == ("Replicate()", "Shard(1)")


@pytest.mark.parametrize("axes", [{"tp": 2}, {"tp": 4}, {"dp": 2, "tp": 2}, {"tp": 2, "x": 2}])
def test_a_placement_gives_each_rank_at_least_the_rows_of_the_plan(axes: dict[str, int]) -> None:
    for seed in range(20):
        graph = tiny().graph
        made = random_plan(graph, Mesh(**axes), seed, SIZES)
        table = json.loads(export(made, graph, "dtensor").data)["parameters"]
        assert set(table) == {p.name for p in graph.parameters if not p.name.startswith("rope")}
        for name, entry in table.items():
            layout, shape = made.parameters[name], tuple(entry["shape"])
            for rank in range(made.mesh.size):
                theirs = chunked(shape, layout, rank, made.mesh) if entry["exact"] else [(0, n) for n in shape]
                ours = layout.bind(shape, made.mesh).intervals(shape, rank, made.mesh)
                assert all(a <= c and d <= b for (a, b), (c, d) in zip(theirs, ours, strict=True))
                assert tuple(theirs) == ours or not entry["exact"]


def test_a_table_is_json_or_python() -> None:
    graph = graph_of(EVEN)
    made = planned(graph, tp=2)
    table = json.loads(export(made, graph, "dtensor").data)
    assert table["mesh"] == {"tp": 2}
    names: dict[str, Any] = {"Shard": "Shard({})".format, "Replicate": "Replicate()".format}
    text = export(made, graph, "dtensor", suffix=".py").data.decode()
    exec(text.replace("from torch.distributed.tensor import Replicate, Shard", ""), names)
    assert names["MESH"] == {"tp": 2}
    assert names["PLACEMENTS"] == {name: entry["placements"] for name, entry in table["parameters"].items()}


def test_names_are_hugging_faces_where_tensors_are_the_same_row_by_row() -> None:
    graph = tiny(EVEN).graph
    assert "model.layers.1.mlp.down_proj.weight" in export(planned(graph, tp=2), graph, "dtensor").data.decode()
    permuted = tiny().graph  # interleaved rotary pairs, as GGUF has them
    assert "blk.1.ffn_down.weight" in export(planned(permuted, tp=2), permuted, "dtensor").data.decode()


# tp-plan


def tp_plan(made: Plan, graph: Graph) -> tuple[dict[str, str], dict[str, str]]:
    found = export(made, graph, "tp-plan")
    return json.loads(found.data), reasons(found)


def test_an_even_plan_becomes_the_tp_plan_that_transformers_ships() -> None:
    transformers = pytest.importorskip("transformers")
    graph = known_config("llama-3.1-8b").graph
    styles, lost = tp_plan(unitp.plan(graph, Mesh(tp=8)), graph)
    assert lost == {}
    shipped = {f"model.{name}": style for name, style in transformers.LlamaConfig.base_model_tp_plan.items()}
    assert shipped.items() <= styles.items()
    assert styles["lm_head"] == transformers.LlamaForCausalLM._tp_plan["lm_head"]


@pytest.mark.parametrize("config", [EVEN, TINY, BIASED], ids=["even", "tied", "biased"])
@pytest.mark.parametrize("ranks", [2, 3])
def test_every_pattern_names_modules_and_every_style_exists(config: LlamaConfig, ranks: int) -> None:
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    from transformers.integrations.tensor_parallel import ALL_PARALLEL_STYLES

    kind = transformers.Qwen2Config if config.qkv_bias else transformers.LlamaConfig
    about = kind(
        hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=8, num_key_value_heads=4
    )
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(about)
    modules = {name.replace(".0.", ".*.").replace(".1.", ".*.") for name, _ in model.named_modules()}
    linear = {name.replace(".0.", ".*.").replace(".1.", ".*.") for name, m in model.named_modules()
              if isinstance(m, torch.nn.Linear | torch.nn.Embedding)}  # fmt: skip
    graph = graph_of(config)
    for seed in range(20):
        styles, _ = tp_plan(random_plan(graph, Mesh(tp=ranks), seed, SIZES), graph)
        assert set(styles) == linear <= modules
        assert set(styles.values()) <= set(ALL_PARALLEL_STYLES.keys())


def test_what_a_tp_plan_cannot_say_is_held_whole_and_named() -> None:
    graph = tiny().graph
    styles, lost = tp_plan(by_heads(graph, TINY, 2), graph)
    at = "model.layers.*.self_attn"
    assert styles[f"{at}.q_proj"] == styles[f"{at}.k_proj"] == styles[f"{at}.o_proj"] == "replicate"
    said = "dim 0 is split 0:40 40:72, but transformers would split it 0:36 36:72; every rank holds all of it"
    assert said in lost[f"{at}.q_proj.weight"]
    assert "several ranks hold the same rows" in lost[f"{at}.k_proj.weight"]
    assert styles["model.layers.*.mlp.down_proj"] == "rowwise"
    assert styles["model.embed_tokens"] == "embedding_rowwise"
    assert styles["lm_head"] == "colwise_gather_output"  # the same tensor


@pytest.mark.parametrize("ranks,style", [(2, "colwise"), (4, "colwise"), (8, "colwise_gather_output")])
def test_attention_is_split_through_where_kv_heads_divide(ranks: int, style: str) -> None:
    graph = graph_of(BIASED)
    styles, lost = tp_plan(by_heads(graph, BIASED, ranks), graph)
    assert styles["model.layers.*.self_attn.q_proj"] == style
    assert ("model.layers.*.self_attn.q_proj.weight" in lost) == (style != "colwise")


def test_a_bias_that_is_not_with_its_rows_is_named() -> None:
    graph = graph_of(BIASED)
    whole = {f"blk.{i}.attn_q.bias": Layout.replicated(1) for i in range(2)}
    _, lost = tp_plan(_with(by_heads(graph, BIASED, 2), whole), graph)
    assert lost == {
        "model.layers.*.self_attn.q_proj.bias": "the plan does not split it, unlike the style of its module"
    }


def test_projections_that_are_not_split_through_are_gathered_between() -> None:
    graph = graph_of(EVEN)
    made = planned(graph, tp=2)
    whole = Layout.replicated(2)
    down = {f"blk.{i}.ffn_down.weight": whole for i in range(2)}
    styles, lost = tp_plan(_with(made, down), graph)
    assert styles["model.layers.*.mlp.up_proj"] == "colwise_gather_output"
    assert styles["model.layers.*.mlp.down_proj"] == "replicate"
    assert (
        lost["model.layers.*.mlp.up_proj.weight"]
        == "gate_proj, up_proj, down_proj are not split by rows, then by columns; its output is gathered"
    )
    _, lost = tp_plan(_with(made, {"blk.0.ffn_down.weight": whole}), graph)
    assert "layers differ" in lost["model.layers.*.mlp.down_proj.weight"]


def _with(made: Plan, parameters: dict[str, Layout]) -> Plan:
    return msgspec.structs.replace(made, parameters=made.parameters | parameters)


def test_a_tp_plan_is_of_a_decoder() -> None:
    graph = mlp()
    made = plan(Request(graph, Mesh(tp=2), machine=MACHINE))
    with pytest.raises(PlanError, match="mlp is not a Llama-type decoder"):
        export(made, graph, "tp-plan")
    assert json.loads(export(made, graph, "dtensor").data)["parameters"]["up"]["exact"]


def test_experts_have_no_tp_plan_but_placements() -> None:
    graph = known_config("mixtral-8x7b").graph
    made = unitp.plan(graph, Mesh(tp=8))
    with pytest.raises(PlanError, match="mixtral-8x7b is not a Llama-type decoder of plain layers"):
        export(made, graph, "tp-plan")
    table = json.loads(export(made, graph, "dtensor").data)["parameters"]
    assert table["blk.0.ffn_gate_exps.weight"] == {"shape": [8, 14336, 4096], "placements": ["Shard(0)"], "exact": True}
    assert "expert_ids" not in table


# onnx-sharding


def onnx_model(made: Plan, graph: Graph, phase: str = "") -> tuple[Any, Export]:
    onnx = pytest.importorskip("onnx")
    found = export(made, graph, "onnx-sharding", phase=phase)
    return onnx.load_from_string(found.data), found


@pytest.mark.parametrize("axes", [{"tp": 2}, {"tp": 4}, {"dp": 2, "tp": 2}])
@pytest.mark.parametrize("phase", ["prefill", "decode"])
def test_an_annotated_model_is_valid_and_of_the_sizes_of_its_phase(axes: dict[str, int], phase: str) -> None:
    onnx = pytest.importorskip("onnx")
    graph = graph_of(EVEN)
    made = planned(graph, **axes)
    model, _ = onnx_model(made, graph, phase)
    onnx.checker.check_model(model, full_check=True)
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    sizes = made.phase(phase).phase.sizes
    for info in inferred.graph.value_info:
        wanted = [sizes[d] if isinstance(d, str) else d for d in graph.types[info.name].shape]
        assert [d.dim_value for d in info.type.tensor_type.shape.dim] == wanted
    assert len(inferred.graph.value_info) >= len(graph.nodes) - 10
    assert model.configuration[0].num_devices == made.mesh.size


def test_an_annotated_model_computes_what_the_graph_does() -> None:
    pytest.importorskip("onnx")
    from onnx.reference import ReferenceEvaluator

    from unitp.program.lower import lower
    from unitp.testing.simulate import simulate

    graph = graph_of(EVEN)
    sizes = {"batch": 2, "seq": 4, "cache": 8, "live": 8, "take": 2, "candidates": 3}
    phases = [Phase("main", sizes)]
    made = plan(Request(graph, Mesh(dp=2, tp=2), phases, machine=MACHINE))
    model, _ = onnx_model(made, graph)
    rng = np.random.default_rng(1)
    feeds = {
        "input_ids": rng.integers(0, EVEN.vocab, (2, 4)), "position_ids": np.tile(np.arange(4), (2, 1)),
        "write_indices": np.zeros(2, np.int64), "kv_length": np.full(2, 4), "logits_index": np.array([[1, 3], [0, 2]]),
    }  # fmt: skip
    weights = {p.name: read(p.source, [(0, n) for n in shape_of(p.source)], "float64") for p in graph.parameters}
    states = {s.input: np.zeros(s.type.sized(sizes)) for s in graph.states}
    run = ReferenceEvaluator(model).run(None, feeds | weights | states)
    found = dict(zip((o.name for o in model.graph.output), run, strict=True))
    program = lower(graph, unsplit(graph, phases), "main", dtype="float64")
    wanted = simulate(program, feeds, weights, states).outputs
    for name in graph.outputs:
        assert relative_error(found[name], wanted[name]) < 1e-6  # the evaluator normalises in float32


@pytest.mark.parametrize("weights", STORED)
def test_weights_of_16_bits_are_widened_by_a_cast(weights: str) -> None:
    onnx = pytest.importorskip("onnx")
    graph = stored(graph_of(EVEN), weights)
    model, _ = onnx_model(planned(graph, tp=2), graph, "decode")
    onnx.checker.check_model(model, full_check=True)
    onnx.shape_inference.infer_shapes(model, strict_mode=True)
    kinds = {i.name: i.type.tensor_type.elem_type for i in model.graph.input}
    assert kinds["token_embd.weight"] == onnx.TensorProto.DataType.Value(weights.upper())
    casts = [node for node in model.graph.node if node.op_type == "Cast"]
    assert len({node.input[0] for node in casts}) == len(casts) >= 7 * EVEN.layers
    for node in casts:
        specs = node.device_configurations[0].sharding_spec
        assert [spec.tensor_name for spec in specs] == [*node.input, *node.output]


@pytest.mark.parametrize("axes", [{"tp": 2}, {"tp": 3}, {"dp": 2, "tp": 2}, {"tp": 2, "x": 2}])
def test_annotations_say_who_holds_which_part(axes: dict[str, int]) -> None:
    """Rank by rank, the part that an annotation gives is the part that the plan's rule gives, or whole and listed as lost."""
    graph, mesh = tiny().graph, Mesh(**axes)
    for seed in range(6):
        made = random_plan(graph, mesh, seed, SIZES)
        model, found = onnx_model(made, graph)
        lost = {one.what for one in found.lost}
        phase = made.phases[-1]
        for node, annotated in zip(graph.nodes, model.graph.node, strict=True):
            ours = wanted_layouts(graph, made, node)
            (about,) = annotated.device_configurations
            assert {spec.tensor_name for spec in about.sharding_spec} == set(ours)
            for spec in about.sharding_spec:
                name = spec.tensor_name
                shape = [phase.phase.sizes[d] if isinstance(d, str) else d for d in graph.types[name].shape]
                parts = held(spec, shape, mesh)
                exact = [ours[name].bind(shape, mesh).intervals(shape, rank, mesh) for rank in range(mesh.size)]
                assert parts == exact or name in lost
                assert not ours[name].partial or name in lost


def wanted_layouts(graph: Graph, made: Plan, node: Any) -> dict[str, Layout]:
    phase = made.phases[-1]

    def size(d: Any) -> Any:
        return tuple(map(size, d)) if isinstance(d, tuple) else phase.phase.sizes.get(d, d) if isinstance(d, str) else d

    bound = msgspec.structs.replace(node, attrs={key: size(value) for key, value in node.attrs.items()})
    rule = rule_of(bound.op, bound.attrs, [size(graph.types[n].shape) if n else None for n in bound.inputs])
    splits = {f: s.bind(int(rule.factors[f].size), made.mesh) for f, s in phase.nodes.get(node.name, {}).items()}
    sides = layouts(rule, splits)
    pairs = zip((*node.inputs, *node.outputs), (*sides[0], *sides[1]), strict=True)
    found: dict[str, Layout] = {}
    for name, layout in pairs:
        if name and layout is not None:
            found.setdefault(name, layout)
    return found


def held(spec: Any, shape: list[int], mesh: Mesh) -> list[tuple[tuple[int, int], ...]]:
    """By rank, the part that a ShardingSpecProto gives it, read as the specification says."""
    groups = {entry.key: list(entry.value) for entry in spec.index_to_device_group_map}
    grid = [(d.axis, d.simple_sharding[0].dim_value, d.simple_sharding[0].num_shards) for d in spec.sharded_dim]
    found: dict[int, tuple[tuple[int, int], ...]] = {}
    for number, device in enumerate(spec.device):
        part = [(0, n) for n in shape]
        for axis, size, count in reversed(grid):
            number, at = divmod(number, count)
            part[axis] = (at * size // count, (at + 1) * size // count)
        for rank in groups.get(device, [device]):
            assert rank not in found
            found[rank] = tuple(part)
    return [found[rank] for rank in range(mesh.size)]


# the command line


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model and plans of it."""
    at = tmp_path_factory.mktemp("export")
    write_huggingface(at / "even", EVEN)
    graph = unitp.load(at / "even").graph
    plan_file.save(planned(graph, tp=2), at / "even.json")
    plan_file.save(certified(by_heads(graph, EVEN, 8), planned(graph, tp=2).certificate), at / "uneven.json")
    return at


class Said:
    def __init__(self, capture: pytest.CaptureFixture[str], *arguments: object) -> None:
        self.code: Any = 0
        try:
            cli.main(["export", *map(str, arguments)])
        except SystemExit as end:
            self.code = end.code or 0
        self.out, self.err = capture.readouterr()


def test_export_writes_and_says_what_is_not_in_it(
    written: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("--model", written / "even", "--to", "tp-plan", "-o", tmp_path / "plan.py")
    said = Said(capsys, written / "uneven.json", *arguments)
    assert said.code == 0
    assert said.out == f"written to {tmp_path / 'plan.py'}\n"
    assert (
        "not in tp-plan: 2 x model.layers.*.self_attn.k_proj.weight: several ranks hold the same rows of dim 0"
        in said.err
    )
    assert "never in tp-plan: collectives" in said.err
    assert '"model.layers.*.self_attn.k_proj": "replicate",' in (tmp_path / "plan.py").read_text()


def test_strict_writes_nothing_where_something_is_lost(
    written: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "table.json"
    arguments = ("--model", written / "even", "--to", "dtensor", "-o", out, "--strict")
    said = Said(capsys, written / "uneven.json", *arguments, "--json")
    assert said.code == 1
    assert not out.exists()
    found = json.loads(said.out)
    assert found["output"] == ""
    assert any(group["count"] == 2 and "k_proj" in group["what"] for group in found["lost"])
    assert Said(capsys, written / "even.json", *arguments).code == 0
    assert json.loads(out.read_text())["lost"] == []


@pytest.mark.parametrize(
    "arguments,message",
    [
        (["--to", "dtensors"], 'Did you mean "dtensor"?'),
        (["--to", "onnx_sharding"], 'Did you mean "onnx-sharding"?'),
        (["--to", "dtensor", "--phase", "train"], 'the plan has no phase "train"'),
        (["--to", "dtensor", "--model", "smollm2-135m"], "made for another graph"),
        (["--to", "dtensor", "-o", "none/x.json"], "there is no folder none"),
    ],
)
def test_bad_requests_write_nothing(
    written: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    said = Said(capsys, written / "even.json", "--model", written / "even", "-o", "x.json", *arguments)
    assert said.code == 2
    assert message in said.err
    assert not list(tmp_path.iterdir())


def test_a_model_that_is_not_known_has_to_be_given(
    written: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = Said(capsys, written / "even.json", "--to", "dtensor", "-o", tmp_path / "x.json")
    assert said.code == 2
    assert "Give it with --model." in said.err


def test_a_missing_onnx_is_named_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    graph = graph_of(EVEN)
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(InputError, match="onnx is not installed") as caught:
        export(planned(graph, tp=2), graph, "onnx-sharding")
    assert "pip install" in caught.value.hint
