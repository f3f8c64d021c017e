"""Generators, references and small models that tests import."""
