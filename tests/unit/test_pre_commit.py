"""The hooks of pre-commit run the tools of .venv and fetch nothing."""

import yaml

from tests.support.paths import ROOT

REPOSITORIES = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
HOOKS = {hook["id"]: hook for repository in REPOSITORIES for hook in repository["hooks"]}


def test_every_hook_is_local_and_runs_what_is_installed():
    assert {repository["repo"] for repository in REPOSITORIES} == {"local"}
    assert {hook["language"] for hook in HOOKS.values()} == {"system"}
    assert [hook["entry"] for hook in HOOKS.values() if not hook["entry"].startswith(".venv/bin/")] == []


def test_the_hooks_are_the_checks_of_the_code():
    assert set(HOOKS) == {"ruff", "ruff-format", "mypy", "import-linter", "nbstripout", "codespell"}
