"""Kernels for programs of few rows, compiled by numba; without numba, NumPy does the same work."""
