"""What to compute: values, operators and parameters; `ops/` has one record per operator."""
