"""The second shape: one query head less, one KV head more, and a model that runs."""

from __future__ import annotations

import numpy as np
from speed.files import with_even_heads

import unitp
from unitp.frontends.llama import weight_shapes
from unitp.testing.models import TINY, arrays, random_weights, write_huggingface


def test_heads_become_even_and_all_other_weights_stay():
    weights = arrays(random_weights(TINY))
    config, made = with_even_heads(TINY, weights)
    assert (config.heads, config.kv_heads) == (8, 4)
    assert {name: w.shape for name, w in made.items()} == dict(weight_shapes(config))
    touched = {"attn_q", "attn_k", "attn_v", "attn_output"}
    assert all(made[name] is weights[name] for name in weights if name.split(".")[-2] not in touched)
    key = made["blk.0.attn_k.weight"]
    np.testing.assert_array_equal(key[-TINY.head_dim :], key[: TINY.head_dim])


def test_unitp_reads_what_is_written_for_transformers(tmp_path):
    config, weights = with_even_heads(TINY, arrays(random_weights(TINY)))
    model = unitp.load(str(write_huggingface(tmp_path / "even", config, weights)))
    assert unitp.plan(model, unitp.Mesh(tp=2)).mesh.size == 2
