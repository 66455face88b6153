"""The commit that a run was made with."""

import subprocess

from fmbench.records import provenance
from fmbench.records.provenance import git_state


def test_changed_plugins_make_a_checkout_dirty(tmp_path, monkeypatch):
    def git(*arguments):
        subprocess.run(["git", "-C", tmp_path, *arguments], check=True, capture_output=True)

    for name in ("fmbench", "hydra_plugins", "conf", "docs"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("as committed", "utf-8")
    git("init")
    git("add", ".")
    git("-c", "user.name=a", "-c", "user.email=a@b", "commit", "-m", "all")
    monkeypatch.setattr(provenance, "PACKAGE", tmp_path / "fmbench")
    states = []
    for name in ("docs", "hydra_plugins"):
        (tmp_path / name / "file").write_text("changed", "utf-8")
        git_state.cache_clear()
        states.append(git_state()["dirty"])
    git_state.cache_clear()
    assert states == [False, True]
