"""Plan once, run on any framework, prove that the results agree.

    model = unitp.load("smollm2-135m")
    plan = unitp.plan(model, mesh=unitp.Mesh(tp=2))
    with unitp.launch(model, plan, backend="torch") as session:
        logits = session.run(input_ids=ids)["logits"]
    print(unitp.compare(model, plan, backends=["numpy", "torch"], prompt="The capital of France is"))

Names are imported when they are first used, so that `import unitp` costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unitp.api import plan
    from unitp.comparison.compare import Comparison, compare
    from unitp.engine.sampling import Sampling
    from unitp.errors import UnitpError
    from unitp.frontends import load
    from unitp.frontends.builder import Builder
    from unitp.frontends.model import Model
    from unitp.mesh import Mesh
    from unitp.plans import Phase, Plan
    from unitp.session.launch import launch
    from unitp.session.session import Session

__all__ = [
    "Builder",
    "Comparison",
    "Mesh",
    "Model",
    "Phase",
    "Plan",
    "Sampling",
    "Session",
    "UnitpError",
    "compare",
    "launch",
    "load",
    "plan",
]

_HOMES = {
    "Builder": "unitp.frontends.builder",
    "Comparison": "unitp.comparison.compare",
    "Mesh": "unitp.mesh",
    "Model": "unitp.frontends.model",
    "Phase": "unitp.plans",
    "Plan": "unitp.plans",
    "Sampling": "unitp.engine.sampling",
    "Session": "unitp.session.session",
    "UnitpError": "unitp.errors",
    "compare": "unitp.comparison.compare",
    "launch": "unitp.session.launch",
    "load": "unitp.frontends",
    "plan": "unitp.api",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("unitp")
    if name not in _HOMES:
        raise AttributeError(f"module 'unitp' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
