"""`ForecastProgram`: raw readings to forecasts, the network and all around it as one module.

It does what the batches of a run and its forecaster do, in operators that `torch.export` and ONNX
have, without a series, a calendar or pgti: that is why it repeats a few formulas of theirs.
"""

import copy

import numpy as np
import torch
from torch import Tensor, nn

from pgti.batching import Batch, WindowSource
from pgti.forecasting import NetworkForecaster
from pgti.interop.export.clock import calendar_feature, day_of_week, month_of_year, time_of_day
from pgti.interop.export.interface import ProgramInterface
from pgti.nn.sparse_product import prepare_export

__all__ = ["ForecastProgram"]

_FADING = 0.9  # of `pgti.batching.filling`
_SATURDAY = 5
_TIMES_OF_DAY, _DAYS_OF_WEEK, _MONTHS = 2, 7, 12  # kinds of day of `TypicalReadings`


class ForecastProgram(nn.Module):
    """The forecasts of a run from raw readings.

    Called with the tensors of `interface.inputs`, in their order. It returns [B, H, N, C_out] in
    original units, and with quantiles also those, [B, H, N, C_out, Q].

    Args:
        source: what the windows of the run hold.
        forecaster: of the run; it is copied to the CPU.
        interface: the tensors that the program takes and returns.
    """

    mean: Tensor
    std: Tensor
    offsets: Tensor | None
    typical: Tensor
    static: Tensor | None
    codes: Tensor | None

    def __init__(
        self, source: WindowSource, forecaster: NetworkForecaster, interface: ProgramInterface
    ) -> None:
        super().__init__()
        self._source, self._interface = source, interface
        self._forecaster = copy.deepcopy(forecaster).cpu().eval().requires_grad_(False)
        self._forecaster.deterministic = False
        prepare_export(self._forecaster.supports)
        seen = list(interface.channels)
        self._known = [seen.index(index) for index in source.known_indices]
        self._targets = [seen.index(index) for index in source.target_indices]
        num_channels = source.store.meta.num_channels
        self._places = [seen.index(i) if i in seen else len(seen) for i in range(num_channels)]
        offsets, table = source.offsets, source.scaled_typical()
        static = source.static_inputs(torch.device("cpu"))
        constants = {
            "mean": torch.tensor([source.scaler.mean[index] for index in seen]),
            "std": torch.tensor([source.scaler.std[index] for index in seen]),
            "offsets": None if offsets is None else torch.from_numpy(offsets[:, seen]),
            "typical": torch.from_numpy(table[..., seen])
            if table is not None and interface.uses_typical
            else None,
            "static": None if static is None else static.values,
            "codes": None if static is None else static.codes,
        }
        for name, tensor in constants.items():
            self.register_buffer(name, None if tensor is None else tensor.contiguous())

    def forward(self, *tensors: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """The forecasts, and their quantiles where there are any; see the class."""
        given = dict(zip(self._interface.names, tensors, strict=True))
        prediction = self._forecaster.predict(self._batch(given))
        if prediction.quantiles is None:
            return prediction.point
        return prediction.point, prediction.quantiles

    def _batch(self, given: dict[str, Tensor]) -> Batch:
        source, num_inputs = self._source, self._source.spec.input_steps
        readings, times = given["readings"], given.get("times")
        mask = ~readings.isnan()
        scaled = self._scale(readings, mask)
        bins = None if times is None else self._bins(times)
        x = self._fill(scaled, mask, bins) if source.fill == "last" else scaled
        calendar = self._calendar(readings, times, given.get("holidays"))
        every_mask = self._of_all_channels(mask)
        more = self._more(every_mask, bins, calendar)
        batch = Batch(
            x=torch.cat([self._of_all_channels(x), *more], dim=-1),
            x_mask=every_mask,
            y=None,
            y_mask=None,
            calendar=calendar,
            starts=np.empty(0, dtype=np.int64),
            static=self.static,
            static_codes=self.codes,
        )
        if "future" in given:
            future, known = given["future"], ~given["future"].isnan()
            ahead = self._scale(future, known, self._known)
            if source.fill == "last":
                past = scaled[..., self._known], mask[..., self._known]
                filled = self._fill(
                    torch.cat([past[0], ahead], dim=1),
                    torch.cat([past[1], known], dim=1),
                    bins,
                    self._known,
                )
                ahead = filled[:, num_inputs:]
            batch.future, batch.future_mask = ahead, known
        if "history" in given:
            history = self._history(given["history"], given.get("history_times"))
            batch.history, batch.history_mask = map(self._of_all_channels, history)
        return batch

    def _of_all_channels(self, seen: Tensor) -> Tensor:
        """With 0 for each channel of the series that the network does not see."""
        if self._places == list(range(seen.shape[-1])):
            return seen
        nothing = torch.zeros_like(seen[..., :1])
        return torch.cat([seen, nothing], dim=-1)[..., self._places]

    def _scale(self, readings: Tensor, mask: Tensor, channels: list[int] | None = None) -> Tensor:
        """Standardised readings, 0 where missing."""
        mean, std, offsets = self.mean, self.std, self.offsets
        if channels is not None:
            mean, std = mean[channels], std[channels]
            offsets = None if offsets is None else offsets[:, channels]
        values = readings if offsets is None else (readings - offsets).float()
        return torch.where(mask, (values - mean) / std, 0.0)

    def _usual(self, bins: Tensor | None, channels: list[int] | None) -> Tensor:
        """Typical readings at times [.., N, C]; one for all times where they have no bins."""
        table = self.typical if channels is None else self.typical[..., channels]
        if bins is None:
            return table[0]
        return table.index_select(0, bins.flatten()).view(*bins.shape, *table.shape[1:])

    def _fill(
        self,
        scaled: Tensor,
        mask: Tensor,
        bins: Tensor | None,
        channels: list[int] | None = None,
    ) -> Tensor:
        """Readings [B, T, N, C] as `fill_missing` fills them."""
        distance = torch.zeros_like(scaled[:, 0])
        filled = []
        for step in range(scaled.shape[1]):
            usual = self._usual(None if bins is None else bins[:, step], channels)
            readings, observed = scaled[:, step], mask[:, step]
            distance = torch.where(observed, readings - usual, distance * _FADING)
            filled.append(torch.where(observed, readings, usual + distance))
        return torch.stack(filled, dim=1)

    def _more(self, mask: Tensor, bins: Tensor | None, calendar: Tensor) -> list[Tensor]:
        """What follows the readings in x: mask, climatology, calendar."""
        source, (batch, steps, nodes, _) = self._source, mask.shape
        more: list[Tensor] = [mask.float()] if source.observed_mask else []
        if source.climatology:
            assert bins is not None  # a climatology has times of day
            for first in (0, source.spec.horizon):
                more.append(self._usual(bins[:, first : first + steps], self._targets))
        if calendar.shape[-1]:
            more.append(calendar[:, :steps, None].expand(batch, steps, nodes, -1))
        return more

    def _calendar(self, readings: Tensor, times: Tensor | None, holidays: Tensor | None) -> Tensor:
        """Calendar features of inputs and horizon, [B, L + H, F]."""
        features: list[Tensor] = []
        num_holidays = 0
        for name in self._source.calendar:
            if name in self._interface.holidays:
                assert holidays is not None
                features.append(holidays[..., num_holidays])
                num_holidays += 1
            else:
                assert times is not None
                features.append(calendar_feature(name, times))
        if not features:
            return readings.new_zeros(readings.shape[0], self._source.spec.span, 0).float()
        return torch.stack(features, dim=-1)

    def _bins(self, times: Tensor) -> Tensor | None:
        """The entry of the typical readings for each time; None where there is one for all."""
        typical = self._source.typical
        if typical is None or not self._interface.uses_typical or typical.num_days == 1:
            return None
        if typical.num_days == _MONTHS:
            return month_of_year(times)
        day = day_of_week(times)
        if typical.num_days == _DAYS_OF_WEEK:
            return day
        bins_per_day = len(typical.table) // _TIMES_OF_DAY
        of_day = (time_of_day(times).double() * bins_per_day + 0.01).long()
        return of_day + bins_per_day * (day >= _SATURDAY).long()

    def _history(self, history: Tensor, times: Tensor | None) -> tuple[Tensor, Tensor]:
        """Earlier readings, filled with what is typical, and which were observed."""
        mask = ~history.isnan()
        scaled = self._scale(history, mask)
        if not self._source.fills_history:
            return scaled, mask
        bins = None if times is None else self._bins(times)
        return torch.where(mask, scaled, self._usual(bins, None)), mask
