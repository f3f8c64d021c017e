"""A plug-in that cannot be imported."""

raise ImportError("libstrange.so.1: cannot open shared object file")
