"""Shape letters, used in the names of tensors and in these aliases.

    B batch      T time steps of the series   L input steps   H horizon   N nodes
    C channels   F calendar features          D hidden        E edges     K hops   S supports
    Q quantiles  I intervals

A tensor local named `x_BLNC` has the shape [B, L, N, C]. The aliases below are plain tensors to
the type checker; the string is for the reader.
"""

from typing import Annotated

from torch import Tensor

__all__ = ["BHNC", "BHNCI", "BHNCQ", "BLNC", "NBD", "NF"]

BLNC = Annotated[Tensor, "B L N C"]
BHNC = Annotated[Tensor, "B H N C"]
BHNCI = Annotated[Tensor, "B H N C I"]
BHNCQ = Annotated[Tensor, "B H N C Q"]
NBD = Annotated[Tensor, "N B D"]
NF = Annotated[Tensor, "N F"]
