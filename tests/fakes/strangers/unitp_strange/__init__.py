"""A stranger's distribution with six plug-ins, found by its entry points where this folder is on the path.

`skewed` works and computes a little wrong; `absent` wants a framework that is not installed; of the rest each is broken in its own way.
"""
