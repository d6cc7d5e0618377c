"""The ranks of a job: how they were launched, how they communicate, and what they send.

Only this package imports `torch.distributed`. Callers receive a `Communicator` and need not ask
how many ranks there are: `SingleProcess` stands for one.
"""

from typing import TYPE_CHECKING

from pgti.lazy import lazy_names

if TYPE_CHECKING:
    from pgti.distributed.communicator import KINDS as KINDS
    from pgti.distributed.communicator import Communicator as Communicator
    from pgti.distributed.communicator import Kind as Kind
    from pgti.distributed.communicator import Message as Message
    from pgti.distributed.communicator import SingleProcess as SingleProcess
    from pgti.distributed.communicator import SpaceGroup as SpaceGroup
    from pgti.distributed.communicator import TrafficCounter as TrafficCounter
    from pgti.distributed.communicator import Work as Work
    from pgti.distributed.communicator import check_shards as check_shards
    from pgti.distributed.init import init_communicator as init_communicator
    from pgti.distributed.init import make_current as make_current
    from pgti.distributed.init import open_fake as open_fake
    from pgti.distributed.launch import TIMEOUT_SECONDS as TIMEOUT_SECONDS
    from pgti.distributed.launch import Launch as Launch
    from pgti.distributed.launch import find_launch as find_launch
else:
    __getattr__, __dir__, __all__ = lazy_names(__name__)
