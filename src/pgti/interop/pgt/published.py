"""The data sets that PGT publishes, and recipes for the files that its loaders and DCRNN read.

Every statement has a source: PGT's loaders and papers. Where nobody states something, the entry
says so. The data sets are registered with `pgti.datasets`; nothing here imports torch.
"""

from functools import partial

from pgti.datasets.catalogue import DATASETS
from pgti.datasets.dataset import Dataset, Download, FileSet, Prepared, Request
from pgti.datasets.protocol import Protocol
from pgti.datasets.steps import clock_to_times, mask_zeros
from pgti.display import count_of
from pgti.errors import DataError
from pgti.ingestion import open_readings
from pgti.ingestion.instants import parse_start

__all__ = ["CHICKENPOX", "METR_LA", "PEMS", "PEMS_ALL_LA", "PEMS_BAY", "WINDMILL", "register"]

_BOX = "https://anl.app.box.com/shared/static"
_PGT = "https://github.com/benedekrozemberczki/pytorch_geometric_temporal"

_NOT_STATED = "not stated"
_DCRNN = f"{_NOT_STATED} (published with DCRNN, MIT)"
_CALTRANS = f"{_NOT_STATED} (Caltrans PeMS)"
_ZERO_SPEED = (
    "a speed of 0 is a missing reading, as in DCRNN, whose loss and errors leave zeros out"
)


def read_clocked_array(request: Request) -> Prepared:
    """METR-LA and PEMS-BAY: values [T, N, 2], speed and time of day, and a dense matrix [N, N].

    The time of day becomes the times of the rows; a store computes its calendar from those.
    """
    values, matrix = request.paths.values()
    options = request.options()
    readings = open_readings(values, options, has_graph=True)
    if readings.num_channels != 2:
        raise DataError(
            f"{readings.name} has {count_of(readings.num_channels, 'channel')}: the rule is speed "
            "and time of day"
        )
    start = request.dataset.start
    assert start is not None  # it is known for these
    readings = clock_to_times(readings, parse_start(start, None))
    if request.zeros_missing:
        readings = mask_zeros(readings)
    return Prepared(readings=readings, options=options, graph=matrix)


def read_frame(request: Request) -> Prepared:
    """A DataFrame in HDF5, with times and sensor ids, and DCRNN's pickle of ids and matrix."""
    readings, graph = request.paths.values()
    missing = (0.0,) if request.zeros_missing else ()
    return Prepared(readings=readings, options=request.options(missing=missing), graph=graph)


def read_json(request: Request) -> Prepared:
    """Rows and edges in one JSON file, without times."""
    (readings,) = request.paths.values()
    options = request.options(
        interval=request.interval,
        start=request.dataset.start,
        missing=(0.0,) if request.zeros_missing else (),
    )
    return Prepared(readings=readings, options=options)


_SPEEDS = partial(
    Protocol,
    source="Li et al., DCRNN, ICLR 2018, and its generate_training_data.py",
    fractions=(0.7, 0.1, 0.2),
    inputs=("speed",),
    targets=("speed",),
    calendar=("time-of-day",),
    zeros="a speed of 0 counts in neither loss nor errors",
)
_PGTI_SPEEDS = partial(
    _SPEEDS,
    source="PGT-I, whose index-batching cuts windows as DCRNN does",
    num_windows=(73_568, 10_510, 21_019),
    num_steps=105_120,
    notes=("PGT-I also forecasts and scores the time of day, its second channel",),
)
_PGTI_COUNTS = partial(
    Protocol,
    source="PGT-I, whose index-batching cuts windows as DCRNN does",
    fractions=(0.7, 0.1, 0.2),
    zeros="zeros are readings",
)

_speed_dataset = partial(
    Dataset,
    channels=("speed",),
    units=("mph",),
    interval="5min",
    zeros="missing",
    source_page=_PGT,
    zeros_note=_ZERO_SPEED,
)


METR_LA = _speed_dataset(
    name="METR-LA",
    summary="speeds at 207 loop detectors in Los Angeles County, March to June 2012 (DCRNN)",
    num_steps=34_272,
    num_nodes=207,
    start="2012-03-01T00:00",
    licence=_DCRNN,
    file_sets=(
        FileSet(
            recipe=read_clocked_array,
            files=("node_values.npy", "adj_mat.npy"),
            archives=("METR-LA.zip",),
        ),
        FileSet(recipe=read_frame, files=("metr-la.h5", "adj_mx.pkl")),
    ),
    downloads=(Download(name="METR-LA.zip", url=f"{_BOX}/plgsv3te0akmqluiuqva34su60nn93c2"),),
    protocol=_SPEEDS(num_windows=(23_974, 3_425, 6_850), num_steps=34_272),
)
PEMS_BAY = _speed_dataset(
    name="PEMS-BAY",
    summary="speeds at 325 stations in the Bay Area, January to June 2017 (DCRNN)",
    num_steps=52_105,
    num_nodes=325,
    start="2017-01-01T00:00",
    licence=_DCRNN,
    file_sets=(
        FileSet(
            recipe=read_clocked_array,
            files=("pems_node_values.npy", "pems_adj_mat.npy"),
            archives=("PEMS-BAY.zip",),
        ),
        FileSet(recipe=read_frame, files=("pems-bay.h5", "adj_mx_bay.pkl")),
    ),
    downloads=(Download(name="PEMS-BAY.zip", url=f"{_BOX}/7ealcaw862pm12sglyt5g71743eu7s5l"),),
    gaps="keep",
    notes=(
        "it lacks the hour that clocks skip, 2017-03-12T02:00; only windows of its protocol reach "
        "across it",
    ),
    protocol=_SPEEDS(
        num_windows=(36_465, 5_209, 10_419),
        num_steps=52_116,
        across_holes=True,
        notes=(
            "the counts are those of pems-bay.h5; a store with the hour that clocks skip filled, "
            "as earlier versions fetched it, has 52,128 rows and 36,474 / 5,210 / 10,421 windows",
        ),
    ),
)
PEMS = _speed_dataset(
    name="PeMS",
    summary="speeds at 11,160 PeMS stations of all of California, 2018 (PGT-I)",
    num_steps=105_120,
    num_nodes=11_160,
    start="2018-01-01T00:00",
    licence=_CALTRANS,
    file_sets=(
        FileSet(recipe=read_frame, files=("pems_cali_speed.h5", "pems_cali_adj_mat.pkl")),
        FileSet(recipe=read_frame, files=("pems.h5", "adj_mx_pems.pkl")),
    ),
    downloads=(
        Download(name="pems_cali_speed.h5", url=f"{_BOX}/7hfhtie02iufy75ac1d8g8530majwci0"),
        Download(name="pems_cali_adj_mat.pkl", url=f"{_BOX}/4143x1repqa1u26aiz7o2rvw3vpcu0wp"),
    ),
    protocol=_PGTI_SPEEDS(),
)
PEMS_ALL_LA = _speed_dataset(
    name="PeMS-All-LA",
    summary="speeds at 2,716 PeMS stations of Los Angeles, 2018 (PGT-I)",
    num_steps=105_120,
    num_nodes=2_716,
    start="2018-01-01T00:00",
    licence=_CALTRANS,
    file_sets=(
        FileSet(recipe=read_frame, files=("pems_AllLA_speed.h5", "pems_AllLA_adj_mat.pkl")),
        FileSet(recipe=read_frame, files=("pems-all-la.h5", "adj_mx_all_la.pkl")),
    ),
    downloads=(
        Download(name="pems_AllLA_speed.h5", url=f"{_BOX}/crzf75ein8s839de8fklpubauddv1p6w"),
        Download(name="pems_AllLA_adj_mat.pkl", url=f"{_BOX}/9qc2lc1147xzh8kmq3j4fuo4buiksxua"),
    ),
    protocol=_PGTI_SPEEDS(),
)
WINDMILL = Dataset(
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
    file_sets=(FileSet(recipe=read_json, files=("windmill_output.json",)),),
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
    protocol=_PGTI_COUNTS(
        num_windows=(12_220, 1_746, 3_491),
        num_steps=17_472,
        input_steps=8,
        horizon=8,
        inputs=("output",),
        targets=("output",),
    ),
)
CHICKENPOX = Dataset(
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
    file_sets=(FileSet(recipe=read_json, files=("chickenpox.json",)),),
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
    protocol=_PGTI_COUNTS(
        num_windows=(360, 51, 103),
        num_steps=521,
        input_steps=4,
        horizon=4,
        inputs=("change",),
        targets=("change",),
    ),
)


def register() -> None:
    """Add the data sets; the entry point `pgti.datasets` names this."""
    for dataset in (METR_LA, PEMS_BAY, PEMS, PEMS_ALL_LA, WINDMILL, CHICKENPOX):
        DATASETS.register(dataset.name, dataset)
