"""The environments of launchers, as they look, and what they say."""

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgti.distributed.launch import Launch, find_launch, first_host
from pgti.errors import ConfigError

TORCHRUN = {
    "RANK": "5",
    "WORLD_SIZE": "8",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "4",
    "GROUP_RANK": "1",
    "GROUP_WORLD_SIZE": "2",
    "ROLE_RANK": "5",
    "ROLE_WORLD_SIZE": "8",
    "MASTER_ADDR": "node-a",
    "MASTER_PORT": "41231",
    "TORCHELASTIC_RESTART_COUNT": "2",
    "TORCHELASTIC_MAX_RESTARTS": "3",
    "TORCHELASTIC_USE_AGENT_STORE": "True",
}
KUBEFLOW = {
    "RANK": "2",
    "WORLD_SIZE": "3",
    "MASTER_ADDR": "forecast-master-0",
    "MASTER_PORT": "23456",
    "PET_NNODES": "3",
}
RAY = {
    "RANK": "3",
    "WORLD_SIZE": "4",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "2",
    "NODE_RANK": "1",
    "MASTER_ADDR": "10.0.0.4",
    "MASTER_PORT": "35177",
}
SBATCH = {
    "ENVIRONMENT": "BATCH",
    "SLURM_JOB_ID": "4211",
    "SLURM_JOB_NODELIST": "gpu[01-03,07],login5",
    "SLURM_JOB_NUM_NODES": "5",
    "SLURM_NTASKS": "17",
    "SLURM_NPROCS": "17",
    "SLURM_TASKS_PER_NODE": "4(x3),3,2",
    "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0",
    "SLURM_NODEID": "0",
}
SRUN = {
    **SBATCH,
    "SLURM_STEP_ID": "3",
    "SLURM_STEP_NUM_NODES": "3",
    "SLURM_STEP_NUM_TASKS": "11",
    "SLURM_STEP_TASKS_PER_NODE": "4(x2),3",
    "SLURM_STEP_NODELIST": "gpu[02-03,07]",
    "SLURM_NTASKS": "11",
    "SLURM_TASKS_PER_NODE": "4(x2),3",
    "SLURM_PROCID": "9",
    "SLURM_LOCALID": "1",
    "SLURM_NODEID": "2",
}
SRUN_PORT = 20000 + (101 * 4211 + 3) % 10000
OPENMPI = {
    "OMPI_COMM_WORLD_RANK": "3",
    "OMPI_COMM_WORLD_SIZE": "4",
    "OMPI_COMM_WORLD_LOCAL_RANK": "1",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "2",
    "OMPI_COMM_WORLD_NODE_RANK": "1",
    "OMPI_UNIVERSE_SIZE": "4",
    "PMIX_RANK": "3",
    "MASTER_ADDR": "node-a",
}
HYDRA = {
    "PMI_RANK": "1",
    "PMI_SIZE": "2",
    "PMI_FD": "9",
    "MPI_LOCALRANKID": "1",
    "MPI_LOCALNRANKS": "2",
}
CRAY = {
    "PMI_RANK": "6",
    "PMI_SIZE": "8",
    "PMI_LOCAL_RANK": "2",
    "PMI_LOCAL_SIZE": "4",
    "PALS_RANKID": "6",
    "MASTER_ADDR": "x3004c0s13b0n0",
    "MASTER_PORT": "31000",
}


def but(environ: dict[str, str], **changes: str | None) -> dict[str, str]:
    """An environment with some variables changed; None removes one."""
    changed = environ | {name: text for name, text in changes.items() if text is not None}
    return {name: text for name, text in changed.items() if changes.get(name, "") is not None}


def launch(
    launcher: str,
    rank: int,
    world_size: int,
    local_rank: int = 0,
    local_world_size: int = 1,
    **meeting_point: Any,
) -> Launch:
    return Launch(
        launcher=launcher,
        rank=rank,
        world_size=world_size,
        local_rank=local_rank,
        local_world_size=local_world_size,
        **meeting_point,
    )


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        pytest.param({"PATH": "/bin", "HOME": "/root"}, Launch(launcher="alone"), id="plain shell"),
        pytest.param(
            {"MASTER_ADDR": "node-a", "MASTER_PORT": "no", "LOCAL_RANK": "3"},
            Launch(launcher="alone"),
            id="what no launcher speaks of does not matter",
        ),
        pytest.param(
            TORCHRUN,
            launch("torchrun", 5, 8, 1, 4, address="node-a", port=41231, restarts=2),
            id="torchrun on two nodes",
        ),
        pytest.param(
            {"RANK": "0", "WORLD_SIZE": "1"}, Launch(launcher="torchrun"), id="torchrun of one"
        ),
        pytest.param(
            KUBEFLOW,
            launch("torchrun", 2, 3, address="forecast-master-0", port=23456),
            id="Kubeflow: one process a pod",
        ),
        pytest.param(
            RAY, launch("torchrun", 3, 4, 1, 2, address="10.0.0.4", port=35177), id="Ray Train"
        ),
        pytest.param(
            but(RAY, LOCAL_WORLD_SIZE=None),
            launch("torchrun", 3, 4, 1, 4, address="10.0.0.4", port=35177),
            id="local rank alone: one machine",
        ),
        pytest.param(
            but(KUBEFLOW, LOCAL_WORLD_SIZE="1", LOCAL_RANK=""),
            launch("torchrun", 2, 3, address="forecast-master-0", port=23456),
            id="local world size of one, an empty local rank",
        ),
        pytest.param(SBATCH, Launch(launcher="alone"), id="batch script"),
        pytest.param(
            but(SBATCH, SLURM_PROCID=None, SLURM_LOCALID=None, SLURM_NODEID=None),
            Launch(launcher="alone"),
            id="salloc shell",
        ),
        pytest.param(
            but(SRUN, SLURM_STEP_ID="4294967290", SLURM_PROCID="0", SLURM_NODEID="0"),
            Launch(launcher="alone"),
            id="salloc shell as an interactive step",
        ),
        pytest.param(
            but(SRUN, SLURM_PROCID=None), Launch(launcher="alone"), id="a step without a task"
        ),
        pytest.param(
            SRUN,
            launch("slurm", 9, 11, 1, 3, address="gpu02", port=SRUN_PORT),
            id="srun on the third node",
        ),
        pytest.param(
            but(SRUN, SLURM_STEP_TASKS_PER_NODE=None, SLURM_STEP_NODELIST=None, MASTER_PORT="999"),
            launch("slurm", 9, 11, 1, 3, address="gpu01", port=999),
            id="srun that tells of the job alone, port given",
        ),
        pytest.param(
            but(SRUN, MASTER_ADDR="ib-gpu02", SLURM_STEP_NODELIST="gpu[", PMI_RANK="9"),
            launch("slurm", 9, 11, 1, 3, address="ib-gpu02", port=SRUN_PORT),
            id="srun --mpi=pmi2, address given",
        ),
        pytest.param(
            {"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "1"},
            Launch(launcher="slurm", port=20000),
            id="srun of one",
        ),
        pytest.param(
            {
                "SLURM_PROCID": "1",
                "SLURM_STEP_NUM_TASKS": "2",
                "SLURM_LOCALID": "1",
                "SLURM_STEP_TASKS_PER_NODE": "2",
                "SLURM_NODEID": "0",
                "SLURM_JOB_ID": "1",
                "SLURM_STEP_ID": "4294967280",
            },
            launch("slurm", 1, 2, 1, 2, port=20000 + (101 + 4294967280) % 10000),
            id="srun on one node without a list, the last step there can be",
        ),
        pytest.param(
            OPENMPI, launch("openmpi", 3, 4, 1, 2, address="node-a"), id="Open MPI on two nodes"
        ),
        pytest.param(
            but(OPENMPI, OMPI_COMM_WORLD_LOCAL_SIZE="4", MASTER_ADDR=None, MASTER_PORT="65535"),
            launch("openmpi", 3, 4, 1, 4, port=65535),
            id="Open MPI on one node",
        ),
        pytest.param(
            {"OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_SIZE": "1"},
            Launch(launcher="openmpi"),
            id="Open MPI of one",
        ),
        pytest.param(
            SRUN | OPENMPI,
            launch("openmpi", 3, 4, 1, 2, address="node-a"),
            id="mpirun whose daemons srun started",
        ),
        pytest.param(HYDRA, launch("pmi", 1, 2, 1, 2), id="MPICH on one node"),
        pytest.param(
            SRUN | HYDRA, launch("pmi", 1, 2, 1, 2), id="mpiexec whose daemons srun started"
        ),
        pytest.param(
            SBATCH | CRAY,
            launch("pmi", 6, 8, 2, 4, address="x3004c0s13b0n0", port=31000),
            id="Cray",
        ),
        pytest.param(
            {"PMI_RANK": "1", "PMI_SIZE": "2", "MASTER_ADDR": "node-a"},
            launch("pmi", 1, 2, address="node-a"),
            id="PMI that tells nothing of machines",
        ),
        pytest.param({"PMI_RANK": "0", "PMI_SIZE": "1"}, Launch(launcher="pmi"), id="PMI of one"),
        pytest.param(
            SRUN | OPENMPI | HYDRA | but(KUBEFLOW, RANK=" 1 "),
            launch("torchrun", 1, 3, address="forecast-master-0", port=23456),
            id="RANK and WORLD_SIZE win over everything",
        ),
    ],
)
def test_what_launchers_say(environ: dict[str, str], expected: Launch) -> None:
    assert find_launch(environ) == expected


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        # One half of a pair.
        (but(TORCHRUN, WORLD_SIZE=None), "^RANK is '5' and WORLD_SIZE is not set: .* unset RANK$"),
        (but(TORCHRUN, RANK=None), "^WORLD_SIZE is '8' and RANK is not set: .*unset WORLD_SIZE$"),
        (but(TORCHRUN, RANK="  "), "^WORLD_SIZE is '8' and RANK is not set"),
        ({"OMPI_COMM_WORLD_RANK": "3"}, "^OMPI_COMM_WORLD_RANK is '3' and OMPI_COMM_WORLD_SIZE"),
        ({"PMI_SIZE": "2"}, "^PMI_SIZE is '2' and PMI_RANK is not set"),
        # No whole number.
        (but(TORCHRUN, RANK="five"), "^RANK is 'five': it must be a whole number"),
        (but(TORCHRUN, RANK="-1"), "^RANK is '-1': it must be a whole number"),
        (but(TORCHRUN, RANK="+1"), r"^RANK is '\+1'"),
        (but(TORCHRUN, RANK="1_0"), "^RANK is '1_0'"),
        (but(TORCHRUN, RANK="\u0663"), "^RANK is '\u0663'"),
        (but(TORCHRUN, WORLD_SIZE="8.0"), "^WORLD_SIZE is '8.0'"),
        (
            but(TORCHRUN, WORLD_SIZE="9" * 5000),
            r"^WORLD_SIZE is '9+ \.\.\. 9*': it must be a whole",
        ),
        (but(TORCHRUN, LOCAL_RANK="x"), "^LOCAL_RANK is 'x'"),
        (but(TORCHRUN, LOCAL_WORLD_SIZE="x"), "^LOCAL_WORLD_SIZE is 'x'"),
        (but(TORCHRUN, MASTER_PORT="http"), "^MASTER_PORT is 'http'"),
        (but(TORCHRUN, TORCHELASTIC_RESTART_COUNT="x"), "^TORCHELASTIC_RESTART_COUNT is 'x'"),
        (but(SRUN, SLURM_PROCID="x"), "^SLURM_PROCID is 'x'"),
        (but(SRUN, SLURM_STEP_NUM_TASKS="x"), "^SLURM_STEP_NUM_TASKS is 'x'"),
        (but(SRUN, SLURM_LOCALID="x"), "^SLURM_LOCALID is 'x'"),
        (but(SRUN, SLURM_NODEID="x"), "^SLURM_NODEID is 'x'"),
        (but(SRUN, SLURM_JOB_ID="x"), "^SLURM_JOB_ID is 'x'"),
        (but(SRUN, SLURM_STEP_ID="batch"), "^SLURM_STEP_ID is 'batch'"),
        (but(OPENMPI, OMPI_COMM_WORLD_LOCAL_SIZE="x"), "^OMPI_COMM_WORLD_LOCAL_SIZE is 'x'"),
        (but(CRAY, PMI_LOCAL_RANK="x"), "^PMI_LOCAL_RANK is 'x'"),
        # Out of range.
        (but(TORCHRUN, RANK="8"), "^RANK is 8: .* less than WORLD_SIZE, which is 8"),
        (but(TORCHRUN, RANK="0", WORLD_SIZE="0"), "^WORLD_SIZE is 0: .* at least 1"),
        (but(TORCHRUN, LOCAL_RANK="4"), "^LOCAL_RANK is 4: .* LOCAL_WORLD_SIZE, which is 4"),
        (
            but(TORCHRUN, LOCAL_RANK="8", LOCAL_WORLD_SIZE=None),
            "^LOCAL_RANK is 8: .* less than WORLD_SIZE, which is 8",
        ),
        (but(TORCHRUN, LOCAL_WORLD_SIZE="9"), "^LOCAL_WORLD_SIZE is 9 .* WORLD_SIZE, which is 8"),
        (but(TORCHRUN, LOCAL_WORLD_SIZE="0"), "^LOCAL_WORLD_SIZE is 0 .* from 1 to"),
        (but(TORCHRUN, MASTER_PORT="0"), "^MASTER_PORT is 0: it must be from 1 to 65535"),
        (but(SRUN, MASTER_PORT="65536"), "^MASTER_PORT is 65536: it must be from 1 to 65535"),
        (but(SRUN, SLURM_PROCID="11"), "^SLURM_PROCID is 11: .* SLURM_STEP_NUM_TASKS, which is 11"),
        (
            but(SRUN, SLURM_LOCALID="3"),
            "^SLURM_LOCALID is 3: .* SLURM_STEP_TASKS_PER_NODE, which is 3",
        ),
        (
            but(SRUN, SLURM_STEP_TASKS_PER_NODE="12(x3)"),
            "^SLURM_STEP_TASKS_PER_NODE is 12 on this machine: .* which is 11",
        ),
        (
            but(SRUN, SLURM_NODEID="3"),
            r"^SLURM_NODEID is 3: it must be less than 3, .* which is '4\(x2\),3'",
        ),
        (
            but(OPENMPI, OMPI_COMM_WORLD_RANK="4"),
            "^OMPI_COMM_WORLD_RANK is 4: .* OMPI_COMM_WORLD_SIZE, which is 4",
        ),
        (
            but(HYDRA, MPI_LOCALRANKID="2"),
            "^MPI_LOCALRANKID is 2: .* MPI_LOCALNRANKS, which is 2",
        ),
        # Missing.
        (but(TORCHRUN, MASTER_ADDR=None), "^MASTER_ADDR is not set and WORLD_SIZE is 8"),
        (but(TORCHRUN, MASTER_PORT=None), "^MASTER_PORT is not set and WORLD_SIZE is 8"),
        (
            but(TORCHRUN, MASTER_ADDR=None, LOCAL_WORLD_SIZE="8"),
            "^MASTER_ADDR is not set and WORLD_SIZE is 8",
        ),
        (but(TORCHRUN, LOCAL_RANK=None), "^LOCAL_WORLD_SIZE is 4 and LOCAL_RANK is not set"),
        (
            but(SRUN, SLURM_LOCALID=None),
            "^SLURM_STEP_TASKS_PER_NODE is 3 and SLURM_LOCALID is not set",
        ),
        (
            but(SRUN, SLURM_NODEID=None),
            r"^SLURM_NODEID is not set and SLURM_STEP_TASKS_PER_NODE is '4\(x2\),3'",
        ),
        (
            but(SRUN, SLURM_STEP_NODELIST=None, SLURM_JOB_NODELIST=None),
            "^MASTER_ADDR is not set and SLURM_STEP_NUM_TASKS is 11",
        ),
        (
            but(OPENMPI, MASTER_ADDR=None),
            "^MASTER_ADDR is not set and OMPI_COMM_WORLD_SIZE is 4",
        ),
        (
            but(OPENMPI, MASTER_ADDR=None, OMPI_COMM_WORLD_LOCAL_SIZE=None),
            "^MASTER_ADDR is not set and OMPI_COMM_WORLD_SIZE is 4",
        ),
        (but(HYDRA, MPI_LOCALNRANKS=None), "^MASTER_ADDR is not set and PMI_SIZE is 2"),
        # Lists that are none.
        (
            but(SRUN, SLURM_STEP_TASKS_PER_NODE="4(x2),"),
            r"^SLURM_STEP_TASKS_PER_NODE is '4\(x2\),': it must be tasks per node",
        ),
        (but(SRUN, SLURM_STEP_TASKS_PER_NODE="3,3,3,4x2"), "is '3,3,3,4x2': it must be tasks"),
        (but(SRUN, SLURM_STEP_NODELIST="gpu[01-03"), r"^SLURM_STEP_NODELIST is 'gpu\[01-03'"),
    ],
)
def test_what_cannot_be_right_is_refused(environ: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        find_launch(environ)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"rank": 1}, "^rank is 1: .* less than world_size, which is 1"),
        ({"rank": -1}, "^rank is -1: it must be at least 0"),
        ({"world_size": 0}, "^world_size is 0"),
        ({"world_size": 2, "local_rank": 1}, "^local_rank is 1: .* local_world_size, which is 1"),
        ({"local_world_size": 2}, "^local_world_size is 2 .* world_size, which is 1"),
        ({"port": 70000}, "^port is 70000"),
        ({"restarts": -1}, "^restarts is -1"),
    ],
)
def test_a_launch_made_by_hand_is_checked(fields: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Launch(launcher="alone", **fields)  # type: ignore[arg-type]  # numbers all


@pytest.mark.parametrize(
    ("nodes", "host"),
    [
        ("localhost", "localhost"),
        ("gpu01,gpu07", "gpu01"),
        ("gpu[01-03,07],login5", "gpu01"),
        ("gpu[7,9-11]", "gpu7"),
        ("login5,gpu[01-03,07]", "login5"),
        ("node-a[3]b", "node-a3b"),
        ("node-a[3-5]b,node-c", "node-a3b"),
        ("rack[0-3]-blade[08-15,20]", "rack0-blade08"),
        ("r1i[0-3].example.org", "r1i0.example.org"),
        ("10.0.0.[4-9]", "10.0.0.4"),
    ],
)
def test_first_host_of_a_node_list(nodes: str, host: str) -> None:
    assert first_host("SLURM_JOB_NODELIST", nodes) == host


@pytest.mark.parametrize(
    "nodes",
    ["", ",gpu1", "gpu[01-03", "gpu01-03]", "gpu[]", "gpu[a-c]", "gpu[1-]", "g[[1]]", "a b"],
)
def test_a_list_without_a_first_host_is_refused(nodes: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        first_host("SLURM_JOB_NODELIST", nodes)
    assert str(refusal.value).startswith(f"SLURM_JOB_NODELIST is {nodes!r}: it must be a node list")


def as_ranges(numbers: list[int], width: int) -> str:
    """Numbers in ascending order as Slurm writes them: runs with a dash, zeros in front."""
    runs = itertools.groupby(enumerate(numbers), key=lambda pair: pair[1] - pair[0])
    texts = []
    for _, run in runs:
        first, *rest = (number for _, number in run)
        texts.append(f"{first:0{width}d}" + (f"-{rest[-1]:0{width}d}" if rest else ""))
    return ",".join(texts)


names = st.from_regex(r"[a-z][a-z0-9.-]{0,8}", fullmatch=True)
hosts = st.tuples(
    names,
    st.sets(st.integers(0, 300), min_size=1).map(sorted),
    st.integers(1, 5),
    st.one_of(st.just(""), names),
)


@given(groups=st.lists(hosts, min_size=1, max_size=4))
def test_ranges_expand_to_the_host_that_they_began_with(
    groups: list[tuple[str, list[int], int, str]],
) -> None:
    nodes = ",".join(
        f"{before}[{as_ranges(numbers, width)}]{after}" for before, numbers, width, after in groups
    )
    before, numbers, width, after = groups[0]
    assert first_host("SLURM_JOB_NODELIST", nodes) == f"{before}{numbers[0]:0{width}d}{after}"


def as_tasks(counts: list[int]) -> str:
    """Tasks per node as Slurm writes them: equal neighbours once, with how many they are."""
    runs = ((count, len(list(run))) for count, run in itertools.groupby(counts))
    return ",".join(f"{count}(x{times})" if times > 1 else f"{count}" for count, times in runs)


@given(
    counts=st.lists(st.integers(1, 4), min_size=1, max_size=8),
    job=st.integers(1, 10**9),
    step=st.integers(0, 10**6),
)
def test_all_ranks_of_a_step_know_their_place_and_meet(
    counts: list[int], job: int, step: int
) -> None:
    places = [(node, local) for node, count in enumerate(counts) for local in range(count)]
    launches = [
        find_launch(
            {
                "SLURM_JOB_ID": f"{job}",
                "SLURM_STEP_ID": f"{step}",
                "SLURM_STEP_NODELIST": f"n[01-{len(counts):02d}]",
                "SLURM_STEP_NUM_TASKS": f"{len(places)}",
                "SLURM_STEP_TASKS_PER_NODE": as_tasks(counts),
                "SLURM_PROCID": f"{rank}",
                "SLURM_NODEID": f"{node}",
                "SLURM_LOCALID": f"{local}",
            }
        )
        for rank, (node, local) in enumerate(places)
    ]
    found = [(each.rank, each.local_rank, each.local_world_size) for each in launches]
    assert found == [(rank, local, counts[node]) for rank, (node, local) in enumerate(places)]
    meeting = {(each.world_size, each.address, each.port) for each in launches}
    assert len(meeting) == 1
    assert launches[0].address == ("n01" if len(places) > 1 else "127.0.0.1")
    assert 20000 <= launches[0].port <= 29999


def test_steps_and_jobs_beside_each_other_do_not_share_a_port() -> None:
    ports = {
        find_launch(but(SRUN, SLURM_JOB_ID=f"{job}", SLURM_STEP_ID=f"{step}")).port
        for job in range(4211, 4231)
        for step in range(50)
    }
    assert len(ports) == 20 * 50
