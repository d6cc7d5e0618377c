"""Measurements as library code with typed results; nothing here is needed to train."""

from pgti.bench.contest import alternate as alternate
from pgti.bench.results import Machine as Machine
from pgti.bench.results import Spread as Spread
from pgti.bench.results import to_json as to_json
from pgti.bench.worker import Worker as Worker
