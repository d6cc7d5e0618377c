"""The processes of a job: who they are, what they tell one another, and what that costs.

The only room that imports `torch.distributed`. Callers are given a `Processes` and never ask
whether there are several: one process is `OneProcess`, whose sums are the numbers themselves.
"""

from pgti.distributed.launch import Launch as Launch
from pgti.distributed.launch import find_launch as find_launch
from pgti.distributed.ledger import KINDS as KINDS
from pgti.distributed.ledger import Kind as Kind
from pgti.distributed.ledger import Ledger as Ledger
from pgti.distributed.opening import TIMEOUT_SECONDS as TIMEOUT_SECONDS
from pgti.distributed.opening import open_fake as open_fake
from pgti.distributed.opening import open_processes as open_processes
from pgti.distributed.processes import Message as Message
from pgti.distributed.processes import OneProcess as OneProcess
from pgti.distributed.processes import Pending as Pending
from pgti.distributed.processes import Processes as Processes
