"""What ranks of torch do with an exported plan: `export_ranks.py (dtensor|tp-plan) FOLDERS`, RANK and WORLD_SIZE set.

Each folder holds a model, the exported `plan.py`, and `arrays.npz`; each rank writes what it holds, and of the logits what it
computes, to `rank<r>.npz`.
"""

from __future__ import annotations

import os
import runpy
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist


def as_dtensors(folder: Path, told: dict[str, Any]) -> dict[str, Any]:
    """Distribute whole arrays as the table says; the local parts."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import distribute_tensor

    mesh = init_device_mesh("cpu", tuple(told["MESH"].values()), mesh_dim_names=tuple(told["MESH"]))
    with np.load(folder / "arrays.npz") as whole:
        return {
            name: distribute_tensor(torch.from_numpy(whole[name]), mesh, placements).to_local().numpy()
            for name, placements in told["PLACEMENTS"].items()
        }


def as_model(folder: Path, told: dict[str, Any]) -> dict[str, Any]:
    """Split a loaded model by the tp_plan and run it; the local parts of its parameters, and its logits, before and after.

    What `from_pretrained(..., distributed_config=...)` does, without the package accelerate, which that wants.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from transformers import AutoModelForCausalLM
    from transformers.distributed import DistributedConfig
    from transformers.distributed.tensor_parallel import apply_tensor_parallelism

    size = dist.get_world_size()
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with np.load(folder / "arrays.npz") as given, torch.no_grad():
        ids = torch.from_numpy(given["input_ids"])
        alone = model(ids).logits
    plan, _, _ = model._resolve_parallel_plans(DistributedConfig(tp_size=size, tp_plan=told["TP_PLAN"]))
    apply_tensor_parallelism(model, init_device_mesh("cpu", (size,), mesh_dim_names=("tp",)), plan)
    with torch.no_grad():
        logits = model(ids).logits
    parts = {name: getattr(p, "to_local", lambda p=p: p)() for name, p in model.named_parameters()}
    return {name: part.detach().numpy() for name, part in parts.items()} | {
        "logits": logits.numpy(),
        "alone": alone.numpy(),
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    folders = [Path(text) for text in sys.argv[2:]]
    place = {"rank": int(os.environ["RANK"]), "world_size": int(os.environ["WORLD_SIZE"])}
    dist.init_process_group("gloo", init_method=f"file://{folders[0]}/meeting", **place)
    for folder in folders:
        told = runpy.run_path(str(folder / "plan.py"))
        found = {"dtensor": as_dtensors, "tp-plan": as_model}[sys.argv[1]](folder, told)
        np.savez(folder / f"rank{dist.get_rank()}.npz", **found)
    dist.barrier()
    dist.destroy_process_group()
    # A thread of gloo may outlive its group; Python's end then aborts: "terminate called without an active exception".
    os._exit(0)
