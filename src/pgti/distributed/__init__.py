"""The processes of a job: who they are, what they tell one another, and what that costs.

The only room that imports `torch.distributed`. Callers are given a `Communicator` and never ask
whether there are several: one process is `SingleProcess`, whose sums are the numbers themselves.
"""

from pgti.distributed.communicator import Communicator as Communicator
from pgti.distributed.communicator import Message as Message
from pgti.distributed.communicator import Pending as Pending
from pgti.distributed.communicator import SingleProcess as SingleProcess
from pgti.distributed.init import TIMEOUT_SECONDS as TIMEOUT_SECONDS
from pgti.distributed.init import init_communicator as init_communicator
from pgti.distributed.init import open_fake as open_fake
from pgti.distributed.launch import Launch as Launch
from pgti.distributed.launch import find_launch as find_launch
from pgti.distributed.traffic import KINDS as KINDS
from pgti.distributed.traffic import Kind as Kind
from pgti.distributed.traffic import TrafficCounter as TrafficCounter
