"""What the catalogue says, and the commands that show it."""

import json
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from pgti.cli.main import run_command
from pgti.datasets import DATASETS, Dataset, find_dataset
from pgti.errors import ConfigError
from pgti.ingestion.instants import parse_interval, parse_start

ROOT = Path(__file__).resolve().parents[2]
EACH = pytest.mark.parametrize("dataset", DATASETS.values(), ids=lambda dataset: dataset.name)


@EACH
def test_entries_hold_together(dataset: Dataset) -> None:
    """Addresses are https, shapes and times can be read, and downloads give the first form."""
    assert find_dataset(dataset.name.upper()) is dataset
    assert len(dataset.units) == len(dataset.channels) == dataset.shape[2]
    assert min(dataset.shape) > 0
    assert parse_interval(dataset.interval) > 0
    if dataset.start is not None:
        assert parse_start(dataset.start, None) > 0
    for address in (dataset.source_page, *(each.url for each in dataset.downloads)):
        parts = urlsplit(address)
        assert parts.scheme == "https"
        assert parts.netloc
    if dataset.downloads:
        (preferred, *_) = dataset.file_sets
        had = {each.name for each in dataset.downloads}
        assert had == set(preferred.archives or preferred.files)
    assert set(dataset.default_years) <= set(dataset.years)
    assert all(form.names(dataset.default_years) for form in dataset.file_sets)


@pytest.mark.parametrize("name", ["PEMS03", "PEMS04", "PEMS07", "PEMS08"])
def test_what_zenodo_publishes_has_its_md5(name: str) -> None:
    """Its checksums are known in advance."""
    assert all(each.md5 and len(each.md5) == 32 for each in DATASETS[name].downloads)


def test_names_by_year() -> None:
    """A file of each year, and one of all of them."""
    raw, _, array = DATASETS["LargeST-SD"].file_sets
    assert raw.names((2018, 2019)) == (
        "ca_his_raw_2018.h5",
        "ca_his_raw_2019.h5",
        "ca_meta.csv",
        "ca_rn_adj.npy",
    )
    assert array.names((2018, 2019))[0] == "2018_2019/his.npz"


def test_the_catalogue_only_grows() -> None:
    """It is one mapping for all: packages register data sets, and none is replaced."""
    with pytest.raises(TypeError, match="does not support item assignment"):
        DATASETS["mine"] = DATASETS["METR-LA"]  # type: ignore[index]
    assert repr(DATASETS).startswith("Registry(Chickenpox-Hungary, LargeST-CA, ")
    assert len(DATASETS) == 14


def test_unknown_names() -> None:
    """Similar names are listed, else all."""
    with pytest.raises(ConfigError, match="'metr la' is unknown: similar names are METR-LA"):
        find_dataset("metr la")
    with pytest.raises(ConfigError, match="'xyz' is unknown: known are Chickenpox-Hungary, La"):
        find_dataset("xyz")


@EACH
def test_the_documentation_describes_each(dataset: Dataset) -> None:
    """Name, shape, licence and page stand in docs/datasets.md as the catalogue has them."""
    text = (ROOT / "docs/datasets.md").read_text()
    row = next(line for line in text.splitlines() if line.startswith(f"| {dataset.name} |"))
    for said in (" x ".join(f"{size:,}" for size in dataset.shape), dataset.interval):
        assert f"| {said} |" in row
    assert dataset.licence in row
    assert dataset.source_page in text


def test_the_list(capsys: pytest.CaptureFixture[str]) -> None:
    """Every data set has a row; programs get all of it."""
    assert run_command(["datasets", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)["datasets"]
    assert [each["name"] for each in listed] == list(DATASETS)
    assert run_command(["datasets"]) == 0
    shown = capsys.readouterr().out
    for dataset in DATASETS.values():
        assert dataset.name in shown
        assert " x ".join(f"{size:,}" for size in dataset.shape) in shown
    by_name = {each["name"]: each for each in listed}
    assert by_name["Windmill-Large"]["download_bytes"] == 47_159_335
    assert by_name["METR-LA"]["download_bytes"] is None
    assert by_name["METR-LA"]["store_bytes_at_most"] == 34_272 * 207 * 4
    assert not by_name["LargeST-CA"]["can_download"]


def test_one_of_them(capsys: pytest.CaptureFixture[str]) -> None:
    """Notes and addresses of a data set, whose capitals do not matter."""
    assert run_command(["datasets", "pems-BAY", "--json"]) == 0
    described = json.loads(capsys.readouterr().out)
    assert described["name"] == "PEMS-BAY"
    assert described["shape"] == [52_105, 325, 1]
    assert list(described["downloads"]) == ["PEMS-BAY.zip"]
    assert run_command(["datasets", "pems-BAY"]) == 0
    shown = capsys.readouterr().out
    assert "a speed of 0 is a missing reading" in shown
    assert "67.7 MB" in shown
    assert described["source_page"] in shown
    assert run_command(["datasets", "pems-by"]) == 2
    assert "error: data set 'pems-by' is unknown" in capsys.readouterr().err
