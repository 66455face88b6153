"""No secret gets where somebody else may read it: of a URL, of the environment."""

import json
import re
import time

import pytest
from commands import CHECKOUT, TINY, write_option
from records import write
from reports import build, printed

from fmbench import tracking
from fmbench.cli import callbacks
from fmbench.core.errors import ConfigError, one_line
from fmbench.runs import prepare
from fmbench.search import study

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


@pytest.mark.parametrize("words", [
    ["-m", "sweep=lr_batch", "sweep.storage={}"],
    ["-m", "sweep=lr_batch", "sweep.storage='{}'"],
    ["++sweep.storage={}", "--cfg", "job"],
    ["-m", "storage={}"],
    ["-m", "--storage={}"],
    ["-m", "hydra.sweeper.storage={}"],
    ["{}", "nothing=1"],
], ids=" ".join)  # fmt: skip
def test_a_password_in_a_url_is_refused_and_shown_nowhere(words, command, tmp_path):
    for url in _URLS if "sweep.storage={}" in words else _URLS[:1]:
        status, out, err = command(*(word.format(url) for word in words))
        assert (status, out) == (2, "")
        assert "~/.pgpass" in err
        assert "s3" not in err
        assert err.count("\n") == 1
        assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_password_that_comes_to_the_storage_by_another_way_is_refused(command, tmp_path):
    text = (CHECKOUT / "conf/model/lenet5.yaml").read_text("utf-8")
    write_option("model/odd.yaml", f"{text}note: {_URLS[0]}\n")
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


@pytest.mark.usefixtures("no_pictures")
def test_a_password_of_an_old_folder_is_not_printed(tmp_path):
    for number, url in enumerate(_URLS):
        write(tmp_path / f"a{number}", overrides=[f"sweep.storage={url}"], model=f"x{number} {url}")
        write(tmp_path / f"b{number}", status="failed", error=f"{url}: no", experiment=url)
        write(tmp_path / f"c{number}", status=[url])
    made = build(tmp_path, tmp_path / "out")
    said = printed(made) + "".join(
        path.read_text("utf-8") for path in (tmp_path / "out").glob("*.*") if path.suffix != ".json"
    )
    assert "***" in said
    assert "cr3t" not in said + str([row["left_out"] for row in made.rows])


def test_a_url_without_a_password_is_shown_as_it_is():
    for url in ("https://host:8080/a/b", "postgresql://me@host:5432/db", "file:///a:b/c", "a://b"):
        assert one_line(url) == url
    long = "://a:" * 100_000 + "?password" * 100_000
    start = time.perf_counter()
    one_line(long)
    assert time.perf_counter() - start < 2


@pytest.fixture
def secret(command, tmp_path, monkeypatch):
    """Run a command in a folder with a secret around it; it must be nowhere then."""
    monkeypatch.setenv("SECRET", "s3cr3t")
    monkeypatch.setenv("FMBENCH_DATA", "/s3cr3t/data")
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)

    def call(*words):
        status, out, err = command(*words)
        assert "s3cr3t" not in out + err + caught(tmp_path)
        return status, out, err

    return call


def caught(folder):
    """All names and texts below a folder, but for the files of options there."""
    found = [path for path in folder.rglob("*") if "theirs" not in path.parts]
    texts = [path.read_bytes().decode("latin-1") for path in found if path.is_file()]
    return "".join([*(path.name for path in found), *texts])


_GLOBAL = "# @package _global_\n"


@pytest.mark.parametrize("text", [
    "data: {{root: '{}'}}",
    "data: {{root: '${{oc.env:FMBENCH_DATA,{}}}'}}",
    "data: {{mirrors: ['file:///{}'], download: true}}",
    "optimizer: {{lr: '{}'}}",
    "optimizer: {{lr: '${{oc.decode:{}}}'}}",
    "model: {{note: '${{data.root}}'}}\ndata: {{root: '{}'}}",
    "model: {{note: {{'a': ['{}']}}}}",
    "logger: {{experiment: '{}'}}",
    "defaults: [{{override /model: '{}'}}]",
    "defaults: [{{override /logger: '{}'}}]",
    "hydra: {{run: {{dir: 'x/{}'}}}}",
    "hydra: {{job: {{name: '{}'}}}}",
    "hydra: {{job: {{env_set: {{X: '{}'}}}}}}",
    "hydra: {{job: {{env_copy: [SECRET]}}}}\nmodel: {{note: '${{hydra:job.env_set.SECRET}}'}}",
    "hydra: {{verbose: '{}'}}",
])  # fmt: skip
def test_a_file_reads_nothing_of_the_environment(text, secret):
    value = "${oc.env:NOPE,${oc.env:SECRET}}" if "root: '{}'" in text else "${oc.env:SECRET}"
    write_option("experiment/x.yaml", _GLOBAL + text.format(value) + "\n", "theirs")
    given = ["--config-dir=theirs", "experiment=x", "data.download=false", "model=lenet5"]
    if "override /model" in text:
        del given[-1]
    status, _, err = secret(*given)
    assert status == 2
    assert re.search(r"SECRET|may not set|hydra.run.dir", err)


@pytest.mark.parametrize("words", [["--help"], ["-m", "sweep=x", *TINY, "model=lenet5"]])
def test_nor_does_what_it_says_of_hydra(words, secret):
    value = "${oc.env:SECRET}"
    write_option(
        "sweep/x.yaml",
        f"{_GLOBAL}defaults: [{{override /hydra/sweeper: optuna}}]\n"
        f"hydra:\n  help: {{header: '{value}'}}\n"
        f"  sweeper: {{params: {{batch_size: '16,32'}}, sampler: {{seed: '{value}'}}}}\n",
        "theirs",
    )
    status, _, err = secret("--config-dir=theirs", "sweep=x", *words)
    assert status == 2
    assert "SECRET" in err or "hydra.help" in err


@pytest.mark.parametrize("name", ["SECRET", "NOPE"])
def test_nor_is_it_shown_by_who_only_looks(name, secret):
    write_option(
        "experiment/x.yaml", f"{_GLOBAL}hydra: {{job: {{env_copy: [{name}]}}}}\n", "theirs"
    )
    for words in (["--cfg", "hydra"], ["--cfg", "all"], ["--info", "config"], []):
        status, out, err = secret("--config-dir=theirs", "experiment=x", *words)
        assert (status, out) == (2, "")
        assert name in err
        assert err.count("\n") == 1


def test_the_place_of_the_data_is_said_by_the_name_of_its_variable(secret):
    words = ["model=lenet5", "epochs=1", "data.download=false"]
    for more in ([], ["-m", "seed=0,1"], ["hydra.job.chdir=true"]):
        status, _, err = secret(*words, *more)
        assert status == 3
        assert "put them into $FMBENCH_DATA or $FMBENCH_DATA/FashionMNIST/raw" in err


def test_nor_is_it_in_a_record_or_a_log(secret, tmp_path, monkeypatch):
    """Of data that are lost after the first look at them."""
    monkeypatch.setattr(callbacks, "load", lambda _: None, raising=False)
    monkeypatch.setattr(prepare, "rehearse", lambda _: None)
    status, _, _ = secret("model=lenet5", "data.download=false", "hydra.run.dir=run")
    assert status == 3
    record = json.loads((tmp_path / "here/run/result.json").read_text("utf-8"))
    assert record["status"] == "failed"
    assert "$FMBENCH_DATA/FashionMNIST/raw" in record["error"]


def test_nor_is_the_address_of_a_server(monkeypatch, caplog):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://s3cr3t.example:5000/x?y=s3cr3t")

    with tracking._safely("mlflow"):
        raise OSError("HTTPSConnectionPool(host='s3cr3t.example', port=5000): /x?y=s3cr3t refused")
    assert "s3cr3t" not in caplog.text
    assert "refused" in caplog.text
