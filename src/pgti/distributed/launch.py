"""Which rank a process is and where the ranks meet, from the environment of a launcher."""

import re
from collections.abc import Mapping
from dataclasses import InitVar, dataclass
from typing import NamedTuple

from pgti.errors import ConfigError, require_whole_number

__all__ = ["TIMEOUT_SECONDS", "Launch", "find_launch", "first_host"]

TIMEOUT_SECONDS = 600.0
"""How long a rank waits for another before the job fails, unless the caller chooses."""

_LOOPBACK = "127.0.0.1"
_PORT = 29500
_LAST_PORT = 65535
_SLURM_PORTS = range(20000, 30000)  # below the ports that systems assign by themselves
_LAST_STEP = 0xFFFFFFF0  # above: the "steps" of batch scripts and of interactive shells

_WHOLE_NUMBER = re.compile(r"[0-9]{1,18}")
_RANGES = r"\[[0-9]+(?:-[0-9]+)?(?:,[0-9]+(?:-[0-9]+)?)*\]"
_HOST = re.compile(rf"(?:[^\[\],\s]|{_RANGES})+(?=,|\Z)")
_FIRST_OF_RANGES = re.compile(r"\[([0-9]+)[^\]]*\]")
_TASKS = re.compile(r"([0-9]{1,9})(?:\(x([0-9]{1,9})\))?")


class _Variables(NamedTuple):
    """The variables of a launcher; of several for one number, the first that is set counts."""

    rank: str
    world_size: str
    local_rank: tuple[str, ...]
    local_world_size: tuple[str, ...]


_TORCHRUN = _Variables("RANK", "WORLD_SIZE", ("LOCAL_RANK",), ("LOCAL_WORLD_SIZE",))
_SLURM = _Variables(
    "SLURM_PROCID",
    "SLURM_STEP_NUM_TASKS",
    ("SLURM_LOCALID",),
    ("SLURM_STEP_TASKS_PER_NODE", "SLURM_TASKS_PER_NODE"),
)
_OPENMPI = _Variables(
    "OMPI_COMM_WORLD_RANK",
    "OMPI_COMM_WORLD_SIZE",
    ("OMPI_COMM_WORLD_LOCAL_RANK",),
    ("OMPI_COMM_WORLD_LOCAL_SIZE",),
)
_PMI = _Variables(
    "PMI_RANK",
    "PMI_SIZE",
    ("MPI_LOCALRANKID", "PMI_LOCAL_RANK"),
    ("MPI_LOCALNRANKS", "PMI_LOCAL_SIZE"),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Launch:
    """Which process of a job this is, and where its processes meet.

    Attributes:
        launcher: "alone", "torchrun" (or whatever sets the same variables), "slurm", "openmpi" or
            "pmi" (MPICH, Intel MPI, Cray).
        rank: of this process.
        world_size: number of processes of the job.
        local_rank: rank within this machine.
        local_world_size: number of processes of the job on this machine.
        address: host of rank 0.
        port: where rank 0 listens.
        restarts: how often torchrun has restarted the processes.
        names: what error messages call the fields, if not by their own names.

    Raises:
        ConfigError: if the numbers contradict each other.
    """

    launcher: str
    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    local_world_size: int = 1
    address: str = _LOOPBACK
    port: int = _PORT
    restarts: int = 0
    names: InitVar[Mapping[str, str] | None] = None

    def __post_init__(self, names: Mapping[str, str] | None) -> None:
        called = {name: name for name in self.__slots__} | dict(names or {})
        require_whole_number(called["world_size"], self.world_size, 1)
        require_whole_number("restarts", self.restarts, 0)
        if not 1 <= self.local_world_size <= self.world_size:
            raise ConfigError(
                f"{called['local_world_size']} is {self.local_world_size} on this machine: it must "
                f"be from 1 to {called['world_size']}, which is {self.world_size}"
            )
        for name, limit in (("rank", "world_size"), ("local_rank", "local_world_size")):
            number, most = getattr(self, name), getattr(self, limit)
            if not 0 <= number < most:
                raise ConfigError(
                    f"{called[name]} is {number}: it must be at least 0 and less than "
                    f"{called[limit]}, which is {most}"
                )
        if not 1 <= self.port <= _LAST_PORT:
            raise ConfigError(f"{called['port']} is {self.port}: it must be from 1 to {_LAST_PORT}")


def find_launch(environ: Mapping[str, str]) -> Launch:
    """Which process of a job this is, from the variables that its launcher sets.

    RANK and WORLD_SIZE (torchrun, Kubeflow, Ray Train, a shell) override everything. Then comes
    the launcher nearest to the process: mpirun or mpiexec, also inside a Slurm step, whose
    variables are then those of the MPI daemons; then srun; then PMI. A batch script or a shell in
    a Slurm allocation is alone, whatever the allocation is for.

    Without a local rank and a local world size, each process counts as alone on its machine. With
    a local rank only, all processes count as being on one machine: a process that takes its part
    of the machine then never takes too much. An empty variable counts as unset.

    Args:
        environ: the environment variables.

    Returns:
        The launch; `Launch(launcher="alone")` without a launcher.

    Raises:
        ConfigError: naming the variable that is missing or cannot be right, its value and the rule.
    """
    variables = {name: text.strip() for name, text in environ.items() if text.strip()}

    def has(names: _Variables) -> bool:
        return names.rank in variables or names.world_size in variables

    if has(_TORCHRUN):
        return _launch("torchrun", _TORCHRUN, variables)
    if has(_OPENMPI):
        return _launch("openmpi", _OPENMPI, variables)
    in_step = _in_step(variables)
    # srun sets PMI_RANK, too, for MPI's sake; only mpiexec sets the rank on the machine.
    if has(_PMI) and ("MPI_LOCALRANKID" in variables or not in_step):
        return _launch("pmi", _PMI, variables)
    return _launch("slurm", _SLURM, variables) if in_step else Launch(launcher="alone")


def first_host(name: str, nodes: str) -> str:
    """The first host of a Slurm node list.

    Args:
        name: the variable that holds the list, for the message.
        nodes: hosts separated by commas, with ranges of numbers in brackets, zeros in front.

    Raises:
        ConfigError: naming the list, if it does not begin with a host.

    >>> first_host("SLURM_STEP_NODELIST", "gpu[01-03,07],login5")
    'gpu01'
    """
    match = _HOST.match(nodes)
    if match is None:
        raise ConfigError(
            f"{name} is {nodes!r}: it must be a node list such as gpu[01-03,07],login5; set "
            "MASTER_ADDR to the host of rank 0 instead"
        )
    return _FIRST_OF_RANGES.sub(r"\1", match[0])


def _in_step(variables: Mapping[str, str]) -> bool:
    """Whether srun started this process as a task of a step.

    Slurm sets SLURM_PROCID and SLURM_NTASKS for batch scripts and shells as well: waiting for that
    many tasks would never end.
    """
    if _SLURM.rank not in variables or _SLURM.world_size not in variables:
        return False
    step = _number(variables, "SLURM_STEP_ID")
    return step is None or step <= _LAST_STEP


def _launch(launcher: str, names: _Variables, variables: Mapping[str, str]) -> Launch:
    """The launch that the variables of one launcher describe."""
    rank, world_size = _number(variables, names.rank), _number(variables, names.world_size)
    if rank is None or world_size is None:
        pair = (names.rank, names.world_size)
        given, missing = pair if rank is not None else pair[::-1]
        raise ConfigError(
            f"{given} is {variables[given]!r} and {missing} is not set: "
            f"a job sets both or neither; set {missing} or unset {given}"
        )
    local_rank_name = _first_set(variables, names.local_rank) or names.local_rank[0]
    local_rank = _number(variables, local_rank_name)
    size_name = _first_set(variables, names.local_world_size)
    if size_name is None:
        size_name, size = names.world_size, 1 if local_rank is None else world_size
    elif launcher == "slurm":
        size = _tasks_of_node(variables, size_name)
    else:
        size = _whole_number(size_name, variables[size_name])
    if local_rank is None and size > 1:
        raise ConfigError(
            f"{size_name} is {size} and {local_rank_name} is not set: set it to which process of "
            "its machine this is, or unset both"
        )
    num_here = 1 if launcher == "torchrun" or size_name == names.world_size else size
    address, port = _meeting_point(launcher, variables, (names.world_size, world_size), num_here)
    return Launch(
        launcher=launcher,
        rank=rank,
        world_size=world_size,
        local_rank=local_rank or 0,
        local_world_size=size,
        address=address,
        port=port,
        restarts=_number(variables, "TORCHELASTIC_RESTART_COUNT") or 0,
        names={
            **names._asdict(),
            "local_rank": local_rank_name,
            "local_world_size": size_name,
            "port": "MASTER_PORT",
        },
    )


def _meeting_point(
    launcher: str, variables: Mapping[str, str], world_size: tuple[str, int], num_here: int
) -> tuple[str, int]:
    """Host and port of rank 0; at least `num_here` processes of the job are on this machine."""
    address, port = variables.get("MASTER_ADDR"), _number(variables, "MASTER_PORT")
    name, size = world_size
    if launcher == "slurm":
        nodes = _first_set(variables, ("SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST"))
        if address is None and nodes is not None and size > 1:
            address = first_host(nodes, variables[nodes])
        if port is None:  # jobs and steps that share a machine get different ports
            job, step = (_number(variables, each) for each in ("SLURM_JOB_ID", "SLURM_STEP_ID"))
            port = _SLURM_PORTS[(101 * (job or 0) + (step or 0)) % len(_SLURM_PORTS)]
    if address is None and size > num_here:
        raise ConfigError(
            f"MASTER_ADDR is not set and {name} is {size}: set it to the host of rank 0, the same "
            "for all ranks"
        )
    if port is None and launcher == "torchrun" and size > 1:
        raise ConfigError(
            f"MASTER_PORT is not set and {name} is {size}: set it to a free port of rank 0's host, "
            "the same for all ranks, or start the job with torchrun"
        )
    return address or _LOOPBACK, _PORT if port is None else port


def _tasks_of_node(variables: Mapping[str, str], name: str) -> int:
    """How many tasks of the step this node has, from a list such as 4(x2),3 for three nodes."""
    text, node = variables[name], _number(variables, "SLURM_NODEID")
    if node is None:
        raise ConfigError(
            f"SLURM_NODEID is not set and {name} is {text!r}: start the job with srun"
        )
    num_nodes, tasks = 0, 0
    for part in text.split(","):
        match = _TASKS.fullmatch(part)
        if match is None:
            raise ConfigError(f"{name} is {text!r}: it must be tasks per node such as 4(x2),3")
        if num_nodes <= node:
            tasks = int(match[1])
        num_nodes += int(match[2] or 1)
    if node >= num_nodes:
        raise ConfigError(
            f"SLURM_NODEID is {node}: it must be less than {num_nodes}, the nodes of "
            f"{name}, which is {text!r}"
        )
    return tasks


def _first_set(variables: Mapping[str, str], names: tuple[str, ...]) -> str | None:
    return next((name for name in names if name in variables), None)


def _number(variables: Mapping[str, str], name: str) -> int | None:
    return _whole_number(name, variables[name]) if name in variables else None


def _whole_number(name: str, text: str) -> int:
    if _WHOLE_NUMBER.fullmatch(text) is None:
        raise ConfigError(f"{name} is {text!r}: it must be a whole number of at least 0")
    return int(text)
