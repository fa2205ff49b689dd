"""The papers' experiments and our own, one file each: `rmpc study NAME` runs `rmpc_ros/studies/NAME.py`."""
