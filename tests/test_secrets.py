"""No secret gets where somebody else may read it: of a URL, of the environment."""

import time
from pathlib import Path

import pytest
from commands import CHECKOUT
from records import write
from reports import build, printed

from fmbench import study
from fmbench.errors import ConfigError, one_line

#: A password, wherever a URL can have one.
_URLS = [
    "postgresql+psycopg://me:s3cr3t@host/db",
    "postgresql://me:s3/cr3t@host:5432/db",
    "postgresql://:s3cr3t@host/db",
    "postgresql://me@host/db?password=s3cr3t",
    "mysql://me@host/db?charset=utf8&passwd=s3cr3t",
    "mssql+pyodbc:///?odbc_connect=DRIVER%3Dx%3BPWD%3Ds3cr3t",
    "POSTGRESQL://me:s3cr3t@host:port/db",
]


@pytest.mark.parametrize(
    "words",
    [
        ["-m", "sweep=lr_batch", "sweep.storage={}"],
        ["-m", "sweep=lr_batch", "sweep.storage='{}'"],
        ["++sweep.storage={}", "--cfg", "job"],
        ["-m", "storage={}"],
        ["-m", "--storage={}"],
        ["-m", "hydra.sweeper.storage={}"],
        ["{}", "nothing=1"],
    ],
    ids=" ".join,
)
def test_a_password_in_a_url_is_refused_and_shown_nowhere(words, command, tmp_path):
    for url in _URLS:
        status, out, err = command(*(word.format(url) for word in words))
        assert (status, out) == (2, "")
        assert "~/.pgpass" in err
        assert "s3" not in err
        assert err.count("\n") == 1
        assert not list(tmp_path.iterdir())


def test_a_password_that_comes_to_the_storage_by_another_way_is_refused(command, tmp_path):
    Path("mine/model").mkdir(parents=True)
    text = (CHECKOUT / "conf/model/lenet5.yaml").read_text("utf-8")
    Path("mine/model/odd.yaml").write_text(f"{text}note: {_URLS[0]}\n", "utf-8")
    status, out, err = command(
        *("-m", "--config-dir=mine", "model=odd", "sweep=lr_batch", "data=synthetic"),
        "sweep.storage=${model.note}",
    )
    assert (status, out) == (2, "")
    assert "sweep.storage" in err
    assert "s3cr3t" not in err
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
    with pytest.raises(ConfigError, match=r"~/\.pgpass"):
        study.open_storage({"storage": _URLS[0]}, tmp_path)
    _, out, _ = command("--config-dir=mine", "model=odd", "--cfg", "job")
    assert "note: postgresql+psycopg://me:***@host/db" in out


@pytest.mark.parametrize("url", _URLS)
def test_a_password_of_an_old_folder_is_not_printed(url, tmp_path):
    write(tmp_path / "a", overrides=[f"sweep.storage={url}"], model=f"x {url}")
    write(tmp_path / "b", status="failed", error=f"{url}: no answer", experiment=url)
    write(tmp_path / "c", status=[url])
    made = build(tmp_path, tmp_path / "out")
    said = printed(made) + "".join(
        path.read_text("utf-8") for path in (tmp_path / "out").glob("*.*") if path.suffix != ".json"
    )
    assert "***" in said
    assert "cr3t" not in said + str(made.rows[0]["left_out"])


def test_a_url_without_a_password_is_shown_as_it_is():
    for url in ("https://host:8080/a/b", "postgresql://me@host:5432/db", "file:///a:b/c", "a://b"):
        assert one_line(url) == url
    long = "://a:" * 100_000 + "?password" * 100_000
    start = time.perf_counter()
    one_line(long)
    assert time.perf_counter() - start < 2
