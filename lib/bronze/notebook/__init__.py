"""Code of the notebooks."""
