"""Where our nodes differ from ONNX's: what ONNX passes as constant input tensors, our nodes carry as attributes."""

from __future__ import annotations

CONSTANTS = {
    "Expand": ("shape",),
    "ReduceMax": ("axes",),
    "ReduceMean": ("axes",),
    "ReduceSum": ("axes",),
    "Reshape": ("shape",),
    "Slice": ("starts", "ends", "axes", "steps"),
    "Split": ("split",),
    "Squeeze": ("axes",),
    "TopK": ("k",),
    "Unsqueeze": ("axes",),
}
"""The attributes that ONNX passes as inputs, from the second on, in their order."""
