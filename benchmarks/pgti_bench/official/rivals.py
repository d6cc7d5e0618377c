"""The networks by the name of the model beside which each is timed."""

from pgti_bench.official.agcrn import build_agcrn
from pgti_bench.official.d2stgnn import build_d2stgnn
from pgti_bench.official.dcrnn import build_dcrnn
from pgti_bench.official.gman import build_gman
from pgti_bench.official.graph_gru import build_graph_gru
from pgti_bench.official.graph_wavenet import build_graph_wavenet
from pgti_bench.official.himnet import build_himnet
from pgti_bench.official.layers import Rival
from pgti_bench.official.megacrn import build_megacrn
from pgti_bench.official.mtgnn import build_mtgnn
from pgti_bench.official.patchstg import build_patchstg
from pgti_bench.official.st_balance import build_st_balance
from pgti_bench.official.staeformer import build_staeformer
from pgti_bench.official.stgcn import build_stgcn
from pgti_bench.official.stid import build_stid

__all__ = ["RIVALS"]

RIVALS = {
    "a3tgcn": Rival(build_graph_gru, "lehaifeng/T-GCN, PyTorch, with the attention of the paper"),
    "agcrn": Rival(build_agcrn, "LeiBAI/AGCRN"),
    "d2stgnn": Rival(build_d2stgnn, "GestaltCogTeam/D2STGNN"),
    "dcrnn": Rival(build_dcrnn, "chnsh/DCRNN_PyTorch, with the powers of the paper"),
    "gman": Rival(build_gman, "zhengchuanpan/GMAN, in torch"),
    "graph-wavenet": Rival(build_graph_wavenet, "nnzhan/Graph-WaveNet"),
    "himnet": Rival(build_himnet, "XDZhelheim/HimNet"),
    "megacrn": Rival(build_megacrn, "deepkashiwa20/MegaCRN, without the terms of its loss"),
    "mtgnn": Rival(build_mtgnn, "nnzhan/MTGNN, without noise in the choice of neighbours"),
    "patchstg": Rival(build_patchstg, "LMissher/PatchSTG"),
    "st-balance": Rival(
        build_st_balance, "ST-Balance/ST-Balance, without history; attention layers of torch"
    ),
    "staeformer": Rival(build_staeformer, "XDZhelheim/STAEformer"),
    "stgcn": Rival(build_stgcn, "hazdzz/STGCN"),
    "stid": Rival(build_stid, "GestaltCogTeam/STID"),
    "tgcn": Rival(build_graph_gru, "lehaifeng/T-GCN, PyTorch"),
}
