"""Recorded steps on a fake GPU: nothing that is recorded waits, and the host starts little else."""

from collections.abc import Callable, Generator
from contextlib import contextmanager

import pytest

from pgti.training import RunningLoss, TrainingConfig
from pgti.training.capture import WARM_UP_STEPS
from pgti_bench.fake_device import FakeGpu, fake_step

from .test_steps import NAMES, spec_of


class _Recorder:
    """Runs what is to be recorded once, under the checks of the fake GPU; a replay does nothing."""

    def __init__(self, gpu: FakeGpu) -> None:
        self._gpu = gpu
        self.num_recorded = 0
        self.num_launches = 0

    @contextmanager
    def on_side_stream(self) -> Generator[None]:
        """As `GraphRecorder` says."""
        yield

    def record(self, function: Callable[[], None]) -> Callable[[], None]:
        """As `GraphRecorder` says."""
        with self._gpu.checked() as launches:
            function()
        self.num_recorded += 1
        self.num_launches += launches.total
        return lambda: None

    def lacks_memory(self) -> str | None:
        """As `GraphRecorder` says."""
        return None


@pytest.mark.parametrize("name", NAMES)
def test_a_recorded_step_waits_for_nothing_and_starts_few_kernels_itself(name: str) -> None:
    lines: list[str] = []
    precision = TrainingConfig(precision="bfloat16")
    with FakeGpu() as gpu:
        step = fake_step(spec_of(name, training=precision))
        recorder, running = _Recorder(gpu), RunningLoss(gpu.device)
        step.train_step.record(recorder)
        step.train_step.explain_to(lines.append)
        for number in range(WARM_UP_STEPS + 1):
            step.train_step([step.batch], step=number, num_batches=1, running=running)
        with gpu.checked() as launches:
            step.train_step(
                [step.batch], step=4, num_batches=1, learning_rate=1e-3, running=running
            )
    assert lines == []
    assert recorder.num_recorded == 2
    assert recorder.num_launches > 50
    # Zeros of gradients and count, the batch's copy, its sums, the count's copy, the rate.
    assert launches.total <= 10, launches.by_name
