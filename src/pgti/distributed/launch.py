"""What the environment variables of a launcher say: which rank this is, and where all meet."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from pgti.errors import ConfigError, require_whole_number

__all__ = ["Launch", "find_launch", "first_host"]

_LOOPBACK = "127.0.0.1"
_PORT = 29500
_LAST_PORT = 65535
_SLURM_PORTS = range(20000, 30000)  # below the ports that systems hand out by themselves
_LAST_STEP = 0xFFFFFFF0  # above: the "steps" of batch scripts and of interactive shells

_WHOLE_NUMBER = re.compile(r"[0-9]{1,18}")
_RANGES = r"\[[0-9]+(?:-[0-9]+)?(?:,[0-9]+(?:-[0-9]+)?)*\]"
_HOST = re.compile(rf"(?:[^\[\],\s]|{_RANGES})+(?=,|\Z)")
_FIRST_OF_RANGES = re.compile(r"\[([0-9]+)[^\]]*\]")
_TASKS = re.compile(r"([0-9]{1,9})(?:\(x([0-9]{1,9})\))?")


class _Number(NamedTuple):
    """A whole number, and what to call it in a message."""

    name: str
    value: int


class _Ranks(NamedTuple):
    """Which process this is."""

    rank: _Number
    world_size: _Number
    local_rank: _Number
    local_world_size: _Number

    def require(self) -> None:
        """Refuse numbers that contradict each other."""
        local, world = self.local_world_size, self.world_size
        require_whole_number(world.name, world.value, 1)
        if not 1 <= local.value <= world.value:
            raise ConfigError(
                f"{local.name} is {local.value} on this machine: it must be from 1 to "
                f"{world.name}, which is {world.value}"
            )
        for number, limit in ((self.rank, world), (self.local_rank, local)):
            if not 0 <= number.value < limit.value:
                raise ConfigError(
                    f"{number.name} is {number.value}: it must be at least 0 and less than "
                    f"{limit.name}, which is {limit.value}"
                )

    def values(self) -> dict[str, int]:
        """The values by the names that `Launch` gives them."""
        return {name: number.value for name, number in self._asdict().items()}


@dataclass(frozen=True, kw_only=True, slots=True)
class Launch:
    """Which process of a job this is, and where its processes meet.

    Args:
        launcher: who started it: "alone", "torchrun" (and all who speak its variables), "slurm",
            "openmpi" or "pmi" (MPICH, Intel MPI, Cray).
        rank: which process of the job.
        world_size: how many processes the job has.
        local_rank: which process of its machine.
        local_world_size: how many processes of the job its machine has.
        address: host of rank 0.
        port: where rank 0 listens.
        restarts: how often torchrun has started the processes anew.

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

    def __post_init__(self) -> None:
        _Ranks(*(_Number(name, getattr(self, name)) for name in _Ranks._fields)).require()
        _require_port(_Number("port", self.port))
        require_whole_number("restarts", self.restarts, 0)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Names:
    """What a launcher calls its variables; where there are several, the first that is set counts.

    Args:
        launcher: name of the launcher.
        rank: variable of the rank.
        world_size: variable of the world size.
        local_rank: variables of the local rank.
        local_world_size: variables of the local world size.
    """

    launcher: str
    rank: str
    world_size: str
    local_rank: tuple[str, ...]
    local_world_size: tuple[str, ...]


_TORCHRUN = _Names(
    launcher="torchrun",
    rank="RANK",
    world_size="WORLD_SIZE",
    local_rank=("LOCAL_RANK",),
    local_world_size=("LOCAL_WORLD_SIZE",),
)
_SLURM = _Names(
    launcher="slurm",
    rank="SLURM_PROCID",
    world_size="SLURM_STEP_NUM_TASKS",
    local_rank=("SLURM_LOCALID",),
    local_world_size=("SLURM_STEP_TASKS_PER_NODE", "SLURM_TASKS_PER_NODE"),
)
_OPENMPI = _Names(
    launcher="openmpi",
    rank="OMPI_COMM_WORLD_RANK",
    world_size="OMPI_COMM_WORLD_SIZE",
    local_rank=("OMPI_COMM_WORLD_LOCAL_RANK",),
    local_world_size=("OMPI_COMM_WORLD_LOCAL_SIZE",),
)
_PMI = _Names(
    launcher="pmi",
    rank="PMI_RANK",
    world_size="PMI_SIZE",
    local_rank=("MPI_LOCALRANKID", "PMI_LOCAL_RANK"),
    local_world_size=("MPI_LOCALNRANKS", "PMI_LOCAL_SIZE"),
)


def find_launch(environ: Mapping[str, str]) -> Launch:
    """Which process of a job this is, by the variables of whoever started it.

    RANK and WORLD_SIZE (torchrun, Kubeflow, Ray Train, a shell) win over everything. Then comes
    the launcher nearest to the process: mpirun or mpiexec, also inside a step of Slurm's, whose
    variables are then those of its daemons; then srun; then PMI. A batch script or a shell in an
    allocation of Slurm's is alone, whatever the allocation is for.

    Where a launcher tells neither the local rank nor the local world size, each process has a
    machine of its own. Where it tells the local rank alone, all processes are taken to share one
    machine: whoever divides the machine by the local world size then never takes too much. An
    empty variable is one that is not set.

    Args:
        environ: the environment variables.

    Returns:
        The facts; `Launch(launcher="alone")` where no launcher speaks.

    Raises:
        ConfigError: naming the variable that is missing or cannot be right, its value and the rule.
    """
    variables = {name: text.strip() for name, text in environ.items() if text.strip()}
    if _speaks(_TORCHRUN, variables):
        return _torchrun_launch(variables)
    if _speaks(_OPENMPI, variables):
        return _mpi_launch(_OPENMPI, variables)
    in_step = _in_step(variables)
    # srun sets PMI_RANK, too, for MPI's sake; mpiexec alone says which rank of its machine it is.
    if _speaks(_PMI, variables) and ("MPI_LOCALRANKID" in variables or not in_step):
        return _mpi_launch(_PMI, variables)
    if in_step:
        return _slurm_launch(variables)
    return Launch(launcher="alone")


def first_host(name: str, nodes: str) -> str:
    """The first host of a node list of Slurm's.

    Args:
        name: what to call the list in a message.
        nodes: hosts with commas between them; ranges of numbers in brackets, zeros kept.

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


def _speaks(names: _Names, variables: Mapping[str, str]) -> bool:
    return names.rank in variables or names.world_size in variables


def _in_step(variables: Mapping[str, str]) -> bool:
    """Whether srun started this process as a task of a step.

    Slurm tells batch scripts and shells SLURM_PROCID and SLURM_NTASKS as well; what would wait for
    that many tasks would wait for ever.
    """
    if _SLURM.rank not in variables or _SLURM.world_size not in variables:
        return False
    step = _number(variables, "SLURM_STEP_ID")
    return step is None or step.value <= _LAST_STEP


def _torchrun_launch(variables: Mapping[str, str]) -> Launch:
    ranks = _ranks(_TORCHRUN, variables, _number(variables, *_TORCHRUN.local_world_size))
    if ranks.world_size.value > 1 and "MASTER_PORT" not in variables:
        raise ConfigError(
            f"MASTER_PORT is not set and WORLD_SIZE is {ranks.world_size.value}: set it to a free "
            "port of rank 0's host, the same for all ranks, or start the job with torchrun"
        )
    restarts = _number(variables, "TORCHELASTIC_RESTART_COUNT")
    return Launch(
        launcher=_TORCHRUN.launcher,
        **ranks.values(),
        address=_address(variables, ranks.world_size, None),
        port=_port(variables, _PORT),
        restarts=0 if restarts is None else restarts.value,
    )


def _mpi_launch(names: _Names, variables: Mapping[str, str]) -> Launch:
    told = _number(variables, *names.local_world_size)
    ranks = _ranks(names, variables, told)
    return Launch(
        launcher=names.launcher,
        **ranks.values(),
        address=_address(variables, ranks.world_size, told),
        port=_port(variables, _PORT),
    )


def _slurm_launch(variables: Mapping[str, str]) -> Launch:
    told = _slurm_local_world_size(variables)
    ranks = _ranks(_SLURM, variables, told)
    nodes = _first_set(variables, ("SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST"))
    if nodes is None or ranks.world_size.value == 1 or "MASTER_ADDR" in variables:
        address = _address(variables, ranks.world_size, told)
    else:
        address = first_host(nodes, variables[nodes])
    job, step = (_number(variables, name) for name in ("SLURM_JOB_ID", "SLURM_STEP_ID"))
    # Jobs and steps beside each other on a machine get different ports.
    offset = 101 * (0 if job is None else job.value) + (0 if step is None else step.value)
    return Launch(
        launcher=_SLURM.launcher,
        **ranks.values(),
        address=address,
        port=_port(variables, _SLURM_PORTS[offset % len(_SLURM_PORTS)]),
    )


def _ranks(names: _Names, variables: Mapping[str, str], told: _Number | None) -> _Ranks:
    """The four numbers, once they are known not to contradict each other.

    Args:
        names: what the launcher calls them.
        variables: the variables that are set.
        told: the local world size, where the launcher tells it.
    """
    rank, world_size = _number(variables, names.rank), _number(variables, names.world_size)
    if rank is None or world_size is None:
        given, missing = names.rank, names.world_size
        if rank is None:
            given, missing = missing, given
        raise ConfigError(
            f"{given} is {variables[given]!r} and {missing} is not set: "
            f"a job sets both or neither; set {missing} or unset {given}"
        )
    local_rank, local_world_size = _number(variables, *names.local_rank), told
    if local_world_size is None:
        most = 1 if local_rank is None else world_size.value
        local_world_size = _Number(world_size.name, most)
    if local_rank is None and local_world_size.value > 1:
        raise ConfigError(
            f"{local_world_size.name} is {local_world_size.value} and {names.local_rank[0]} is not "
            "set: set it to which process of its machine this is, or unset both"
        )
    local_rank = local_rank or _Number(names.local_rank[0], 0)
    ranks = _Ranks(rank, world_size, local_rank, local_world_size)
    ranks.require()
    return ranks


def _slurm_local_world_size(variables: Mapping[str, str]) -> _Number | None:
    """How many tasks of the step this node has, from a list such as 4(x2),3 for three nodes."""
    name = _first_set(variables, _SLURM.local_world_size)
    if name is None:
        return None
    text = variables[name]
    node = _number(variables, "SLURM_NODEID")
    if node is None:
        raise ConfigError(
            f"SLURM_NODEID is not set and {name} is {text!r}: start the job with srun"
        )
    num_nodes = 0
    found = None
    for part in text.split(","):
        match = _TASKS.fullmatch(part)
        if match is None:
            raise ConfigError(f"{name} is {text!r}: it must be tasks per node such as 4(x2),3")
        num_nodes += int(match[2] or 1)
        if found is None and node.value < num_nodes:
            found = int(match[1])
    if found is None:
        raise ConfigError(
            f"SLURM_NODEID is {node.value}: it must be less than {num_nodes}, the nodes of "
            f"{name}, which is {text!r}"
        )
    return _Number(name, found)


def _address(
    variables: Mapping[str, str], world_size: _Number, local_world_size: _Number | None
) -> str:
    """MASTER_ADDR; this machine where the launcher says that no process is on another."""
    address = variables.get("MASTER_ADDR")
    if address is not None:
        return address
    if world_size.value > (1 if local_world_size is None else local_world_size.value):
        raise ConfigError(
            f"MASTER_ADDR is not set and {world_size.name} is {world_size.value}: "
            "set it to the host of rank 0, the same for all ranks"
        )
    return _LOOPBACK


def _port(variables: Mapping[str, str], default: int) -> int:
    port = _number(variables, "MASTER_PORT")
    if port is None:
        return default
    _require_port(port)
    return port.value


def _first_set(variables: Mapping[str, str], names: tuple[str, ...]) -> str | None:
    return next((name for name in names if name in variables), None)


def _number(variables: Mapping[str, str], *names: str) -> _Number | None:
    """The first of these variables that is set.

    Raises:
        ConfigError: if it is no whole number.
    """
    name = _first_set(variables, names)
    if name is None:
        return None
    text = variables[name]
    if _WHOLE_NUMBER.fullmatch(text) is None:
        raise ConfigError(f"{name} is {text!r}: it must be a whole number of at least 0")
    return _Number(name, int(text))


def _require_port(port: _Number) -> None:
    if not 1 <= port.value <= _LAST_PORT:
        raise ConfigError(f"{port.name} is {port.value}: it must be from 1 to {_LAST_PORT}")
