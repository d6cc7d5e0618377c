"""The data sets that are known by name.

Every statement has a source: the loaders and papers of those who published the files. What
nobody states is left open and said to be so.
"""

from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches

from pgti.datasets.dataset import Dataset, Download, FileSet
from pgti.errors import ConfigError

__all__ = ["DATASETS", "Catalogue", "find_dataset"]

_BOX = "https://anl.app.box.com/shared/static"
_PGT = "https://github.com/benedekrozemberczki/pytorch_geometric_temporal"
_ZENODO = "https://zenodo.org/records/7816008"
_LARGEST = "https://www.kaggle.com/datasets/liuxu77/largest"

_NOT_STATED = "not stated"
_DCRNN = f"{_NOT_STATED} (published with DCRNN, MIT)"
_CALTRANS = f"{_NOT_STATED} (Caltrans PeMS)"
_ZERO_SPEED = (
    "a speed of 0 is a missing reading, as in DCRNN, whose loss and errors leave zeros out"
)
_ZERO_FLOW = (
    "a flow of 0 counts as missing, as published results are scored (BasicTS, Torch-MTS, LargeST), "
    "though many are true counts of a quiet road: --zeros observed keeps them"
)
_PEMS07_NOTES = (
    "its paper says May to August 2017, and 28,224 rows from 2017-05-01 end on 2017-08-06",
)


def _pgt_arrays() -> tuple[Dataset, ...]:
    metr_la = Dataset(
        name="METR-LA",
        summary="speeds at 207 loop detectors in Los Angeles County, March to June 2012 (DCRNN)",
        num_steps=34_272,
        num_nodes=207,
        channels=("speed",),
        units=("mph",),
        interval="5min",
        start="2012-03-01T00:00",
        zeros="missing",
        licence=_DCRNN,
        source_page=_PGT,
        file_sets=(
            FileSet(
                recipe="clocked-array",
                files=("node_values.npy", "adj_mat.npy"),
                archives=("METR-LA.zip",),
            ),
            FileSet(recipe="frame", files=("metr-la.h5", "adj_mx.pkl")),
        ),
        downloads=(Download(name="METR-LA.zip", url=f"{_BOX}/plgsv3te0akmqluiuqva34su60nn93c2"),),
        zeros_note=_ZERO_SPEED,
    )
    pems_bay = Dataset(
        name="PEMS-BAY",
        summary="speeds at 325 stations in the Bay Area, January to June 2017 (DCRNN)",
        num_steps=52_105,
        num_nodes=325,
        channels=("speed",),
        units=("mph",),
        interval="5min",
        start="2017-01-01T00:00",
        zeros="missing",
        licence=_DCRNN,
        source_page=_PGT,
        file_sets=(
            FileSet(
                recipe="clocked-array",
                files=("pems_node_values.npy", "pems_adj_mat.npy"),
                archives=("PEMS-BAY.zip",),
            ),
            FileSet(recipe="frame", files=("pems-bay.h5", "adj_mx_bay.pkl")),
        ),
        downloads=(Download(name="PEMS-BAY.zip", url=f"{_BOX}/7ealcaw862pm12sglyt5g71743eu7s5l"),),
        zeros_note=_ZERO_SPEED,
        notes=(
            "rows that its times of day show to be missing, such as the hour that clocks skip, are "
            "filled with missing readings",
        ),
    )
    return metr_la, pems_bay


def _pems_frames() -> tuple[Dataset, ...]:
    places = (
        ("PeMS", "all of California", 11_160, "cali", "pems", "4143x1repqa1u26aiz7o2rvw3vpcu0wp",
         "7hfhtie02iufy75ac1d8g8530majwci0"),
        ("PeMS-All-LA", "Los Angeles", 2_716, "AllLA", "pems-all-la",
         "9qc2lc1147xzh8kmq3j4fuo4buiksxua", "crzf75ein8s839de8fklpubauddv1p6w"),
    )  # fmt: skip
    found = []
    for name, place, num_nodes, infix, stem, graph_key, speed_key in places:
        graph, speed = f"pems_{infix}_adj_mat.pkl", f"pems_{infix}_speed.h5"
        own_graph = f"adj_mx_{stem.removeprefix('pems-').replace('-', '_')}.pkl"
        found.append(
            Dataset(
                name=name,
                summary=f"speeds at {num_nodes:,} PeMS stations of {place}, 2018 (PGT-I)",
                num_steps=105_120,
                num_nodes=num_nodes,
                channels=("speed",),
                units=("mph",),
                interval="5min",
                start="2018-01-01T00:00",
                zeros="missing",
                licence=_CALTRANS,
                source_page=_PGT,
                file_sets=(
                    FileSet(recipe="frame", files=(speed, graph)),
                    FileSet(recipe="frame", files=(f"{stem}.h5", own_graph)),
                ),
                downloads=(
                    Download(name=speed, url=f"{_BOX}/{speed_key}"),
                    Download(name=graph, url=f"{_BOX}/{graph_key}"),
                ),
                zeros_note=_ZERO_SPEED,
            )
        )
    return tuple(found)


def _pgt_json() -> tuple[Dataset, ...]:
    windmill = Dataset(
        name="Windmill-Large",
        summary="hourly energy output of 319 windmills in a European country, two years",
        num_steps=17_472,
        num_nodes=319,
        channels=("output",),
        units=("",),
        interval="1h",
        start=None,
        zeros="observed",
        licence=_NOT_STATED,
        source_page=_PGT,
        file_sets=(FileSet(recipe="json", files=("windmill_output.json",)),),
        downloads=(
            Download(
                name="windmill_output.json",
                url=f"{_BOX}/wgwb75lt3ty3pv5a15y9bilx1mjhcq59",
                num_bytes=47_159_335,
            ),
        ),
        notes=(
            "the file has no dates: the store has hours and no calendar",
            "the graph is complete, 319 x 319 weights with self-loops",
        ),
    )
    chickenpox = Dataset(
        name="Chickenpox-Hungary",
        summary="weekly chickenpox cases in 20 Hungarian counties, 2005 to 2014",
        num_steps=521,
        num_nodes=20,
        channels=("change",),
        units=("standard deviations",),
        interval="7d",
        start="2005-01-10T00:00",
        zeros="observed",
        licence="MIT (its repository)",
        source_page=_PGT,
        file_sets=(FileSet(recipe="json", files=("chickenpox.json",)),),
        downloads=(
            Download(
                name="chickenpox.json",
                url="https://raw.githubusercontent.com/benedekrozemberczki/"
                "pytorch_geometric_temporal/master/dataset/chickenpox.json",
                num_bytes=220_340,
            ),
        ),
        notes=(
            "the readings are no counts: each is a county's change from the week before, "
            "standardised over all 521 weeks, test weeks included; row 0 is the week of 2005-01-10",
        ),
    )
    return windmill, chickenpox


def _pems_flows() -> tuple[Dataset, ...]:
    sets = (
        ("PEMS03", 26_208, 358, "2018-09-01", "September to November 2018", 1, 15_800_415,
         "651add9bb9eaf7f5eda2f2ee8778a182", "e6cf2ef1e1a9957aeec678a30b7ce7a7"),
        ("PEMS04", 16_992, 307, "2018-01-01", "January and February 2018", 3, None,
         "5238832691101da85fcac772a32051da", "3990731ec980019a875a6d5723523855"),
        ("PEMS07", 28_224, 883, "2017-05-01", "from May 2017", 1, 43_705_518,
         "978d3d9b85fe640a446983a34271a48d", "cea609fed853ade176cb1c5eae0aeda0"),
        ("PEMS08", 17_856, 170, "2016-07-01", "July and August 2016", 3, None,
         "2a528d169c0d90294c9e24288a430132", "5e507b2b18d9235e95b63a20221cd4c5"),
    )  # fmt: skip
    found = []
    for name, num_steps, num_nodes, start, months, num_channels, num_bytes, md5, edges_md5 in sets:
        downloads = [
            _zenodo(f"{name}.npz", md5, num_bytes),
            _zenodo(f"{name}.csv", edges_md5),
        ]
        if name == "PEMS03":  # its edges name stations, which this list puts in order
            downloads.append(_zenodo("PEMS03.txt", "a52b864fbbe9d852ebdd08f6191a987f"))
        district = int(name[-2:])
        found.append(
            Dataset(
                name=name,
                summary=f"flows at {num_nodes} PeMS stations of district {district}, {months}",
                num_steps=num_steps,
                num_nodes=num_nodes,
                channels=("flow", "occupancy", "speed")[:num_channels],
                units=("vehicles per 5 min", "share of time", "mph")[:num_channels],
                interval="5min",
                start=f"{start}T00:00",
                zeros="missing",
                licence="see its record (Caltrans PeMS)",
                source_page=_ZENODO,
                file_sets=(
                    FileSet(
                        recipe="flow-array",
                        files=tuple(download.name for download in downloads),
                    ),
                ),
                downloads=tuple(downloads),
                zeros_note=_ZERO_FLOW,
                notes=(
                    *_PEMS07_NOTES[: name == "PEMS07"],
                    "every pair of stations listed is an edge of weight 1 in both directions, as "
                    "STSGCN and BasicTS read the list",
                ),
            )
        )
    return tuple(found)


def _zenodo(name: str, md5: str, num_bytes: int | None = None) -> Download:
    url = f"{_ZENODO}/files/{name}?download=1"
    return Download(name=name, url=url, md5=md5, num_bytes=num_bytes)


def _largest() -> tuple[Dataset, ...]:
    subsets = (
        ("CA", 8_600, "all of California"),
        ("GLA", 3_834, "Greater Los Angeles, districts 7, 8 and 12"),
        ("GBA", 2_352, "the Greater Bay Area, district 4"),
        ("SD", 716, "San Diego, district 11"),
    )
    found = []
    for subset, num_nodes, place in subsets:
        stem = subset.lower()
        found.append(
            Dataset(
                name=f"LargeST-{subset}",
                summary=f"flows at {num_nodes:,} PeMS stations of {place}, 2017 to 2021",
                num_steps=35_040,
                num_nodes=num_nodes,
                channels=("flow",),
                units=("vehicles per 5 min",),
                interval="15min",
                start="2019-01-01T00:00",
                zeros="missing",
                licence="CC BY-NC 4.0",
                source_page=_LARGEST,
                file_sets=(
                    FileSet(
                        recipe="largest-raw",
                        files=("ca_his_raw_{year}.h5", "ca_meta.csv", "ca_rn_adj.npy"),
                        archives=("archive.zip", "largest.zip"),
                    ),
                    FileSet(
                        recipe="largest-table",
                        files=(f"{stem}_his_{{year}}.h5", f"{stem}_rn_adj.npy"),
                    ),
                    FileSet(
                        recipe="largest-array", files=("{years}/his.npz", f"{stem}_rn_adj.npy")
                    ),
                ),
                years=(2017, 2018, 2019, 2020, 2021),
                default_years=(2019,),
                zeros_note=_ZERO_FLOW,
                notes=(
                    "at 15min flows are means of three 5-minute counts, rounded as its authors do; "
                    "--interval 5min keeps the counts",
                ),
            )
        )
    return tuple(found)


class Catalogue(Mapping[str, Dataset]):
    """Published data sets by name, in the order in which they are listed; it cannot be changed."""

    def __init__(self, datasets: Iterable[Dataset]) -> None:
        self._by_name = {dataset.name: dataset for dataset in datasets}

    def __getitem__(self, name: str) -> Dataset:
        return self._by_name[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_name)

    def __len__(self) -> int:
        return len(self._by_name)

    def __repr__(self) -> str:
        return f"Catalogue({', '.join(self)})"


DATASETS = Catalogue((*_pgt_arrays(), *_pems_frames(), *_pgt_json(), *_pems_flows(), *_largest()))
"""Every data set that `fetch` knows, by name."""


def find_dataset(name: str) -> Dataset:
    """The data set of a name, whose capitals do not matter.

    Raises:
        ConfigError: naming those that are called alike.
    """
    known = {each.lower(): each for each in DATASETS}
    if name.lower() in known:
        return DATASETS[known[name.lower()]]
    close = get_close_matches(name.lower(), known, n=3)
    alike = f"called alike are {', '.join(known[each] for each in close)}" if close else ""
    raise ConfigError(
        f"there is no data set {name!r}: {alike or 'known are ' + ', '.join(DATASETS)}; "
        "`pgti datasets` describes them"
    )
