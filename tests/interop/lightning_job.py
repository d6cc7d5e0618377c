"""A network for Lightning, and what each of two ranks does: train, validate, test and predict."""

import json
import sys
from pathlib import Path
from typing import Any

import lightning
import torch
from torch import Tensor

from pgti import Batch, GlobalShuffle
from pgti.interop.lightning import DataModule
from pgti.models import build_model

WINDOWS: dict[str, Any] = {"input_steps": 3, "horizon": 2, "batch_size": 5}


class Network(lightning.LightningModule):
    """A small GRU of pgti; it notes the batches that it is given."""

    def __init__(self, data: DataModule) -> None:
        super().__init__()
        self.network = build_model("gru", {"hidden": 4}, data.train.shape)
        self.supports = data.train.supports(self.network.support_kind)
        self.unscale = data.train.unscale
        self.batches: dict[str, list[Batch]] = {}

    def forward(self, batch: Batch) -> Tensor:
        """Forecasts in original units, [B, H, N, C_out]."""
        return self.unscale(self.network(batch.x, self.supports))

    def error(self, name: str, batch: Batch) -> Tensor:
        """The masked mean absolute error, logged so that the mean of an epoch is exact."""
        self.batches.setdefault(f"{name}/{self.current_epoch}", []).append(batch)
        assert batch.y is not None
        assert batch.y_mask is not None
        observed = batch.y_mask.sum()
        error = ((self(batch) - batch.y).abs() * batch.y_mask).sum() / observed
        self.log(name, error, on_step=False, on_epoch=True, batch_size=observed, sync_dist=True)
        return error

    def training_step(self, batch: Batch) -> Tensor:
        """A step of training."""
        return self.error("train", batch)

    def validation_step(self, batch: Batch) -> None:
        """A batch of validation."""
        self.error("val", batch)

    def test_step(self, batch: Batch) -> None:
        """A batch of the test."""
        self.error("test", batch)

    def predict_step(self, batch: Batch) -> Tensor:
        """Forecasts of a batch."""
        self.batches.setdefault("predict", []).append(batch)
        return self(batch)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam."""
        return torch.optim.Adam(self.parameters(), lr=0.01)


def make_trainer(**options: Any) -> lightning.Trainer:
    """A trainer on the CPU that writes nothing."""
    quiet = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    defaults: dict[str, Any] = {
        "accelerator": "cpu",
        "devices": 1,
        "max_epochs": 2,
        "num_sanity_val_steps": 0,
        "log_every_n_steps": 1,
        **dict.fromkeys(quiet, False),
    }
    return lightning.Trainer(**defaults | options)


def main(store: str, out: str) -> None:
    """With and without Lightning's own samplers; each rank writes the starts that it saw."""
    for use_distributed_sampler in (True, False):
        lightning.seed_everything(1, verbose=False)
        data = DataModule(store, order=GlobalShuffle(3), **WINDOWS)
        network = Network(data)
        trainer = make_trainer(
            devices=2, strategy="ddp", use_distributed_sampler=use_distributed_sampler
        )
        trainer.fit(network, data)
        (metrics,) = trainer.test(network, data, verbose=False)
        trainer.predict(network, data)
        seen = {
            name: [batch.starts.tolist() for batch in batches]
            for name, batches in network.batches.items()
        }
        path = Path(out) / f"{use_distributed_sampler}-{trainer.global_rank}"
        path.with_suffix(".json").write_text(json.dumps({"seen": seen, **metrics}))
        torch.save(network.network.state_dict(), path.with_suffix(".pt"))


if __name__ == "__main__":
    main(*sys.argv[1:])
