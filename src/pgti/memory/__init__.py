"""Memory: what is available, malloc's policy, what a process and a training step take."""

from typing import TYPE_CHECKING

from pgti.lazy import lazy_names

if TYPE_CHECKING:
    from pgti.memory.available import GPU_FRACTION as GPU_FRACTION
    from pgti.memory.available import available_bytes as available_bytes
    from pgti.memory.available import device_peak_bytes as device_peak_bytes
    from pgti.memory.available import parse_bytes as parse_bytes
    from pgti.memory.malloc import MallocPolicy as MallocPolicy
    from pgti.memory.malloc import can_trim as can_trim
    from pgti.memory.malloc import malloc_policy as malloc_policy
    from pgti.memory.malloc import trim_malloc as trim_malloc
    from pgti.memory.process import PeakMemory as PeakMemory
    from pgti.memory.process import pss_bytes as pss_bytes
    from pgti.memory.step_peak import LiveBytes as LiveBytes
    from pgti.memory.step_peak import is_allocation_failure as is_allocation_failure
    from pgti.memory.step_peak import step_peak_bytes as step_peak_bytes
else:
    __getattr__, __dir__, __all__ = lazy_names(__name__)
