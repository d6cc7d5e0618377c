"""Adapters to other libraries; each module imports its library when it is first used.

from pgti.interop.ray import train_on_ray      Ray Train; the extra `ray`
"""
