"""Benchmarks, one file each: `rmpc bench NAME` runs `rmpc_ros/studies/bench/NAME.py`."""
