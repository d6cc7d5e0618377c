"""The networks by the name of the model beside which each is timed."""

from pgti_bench.official.d2stgnn import build_d2stgnn
from pgti_bench.official.gman import build_gman
from pgti_bench.official.graph_gru import build_graph_gru
from pgti_bench.official.layers import Rival

__all__ = ["RIVALS"]

RIVALS = {
    "a3tgcn": Rival(build_graph_gru, "lehaifeng/T-GCN, PyTorch, with the attention of the paper"),
    "d2stgnn": Rival(build_d2stgnn, "GestaltCogTeam/D2STGNN"),
    "gman": Rival(build_gman, "zhengchuanpan/GMAN, in torch"),
    "tgcn": Rival(build_graph_gru, "lehaifeng/T-GCN, PyTorch"),
}
