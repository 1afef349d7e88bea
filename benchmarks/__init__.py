"""Measurements of the engine and of the loop; each writes a dated file under `results/`."""
