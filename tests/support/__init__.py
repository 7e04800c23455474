"""Code that more than one test file uses: one module per purpose. Fixtures are in the ``conftest.py`` files."""
