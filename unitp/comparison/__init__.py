"""Whether a backend agrees with the oracle, by how much, and how fast it was."""
