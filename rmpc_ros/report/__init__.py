"""What a run was like, from its bag alone: `run.json` (figures), `report.html` (interactive), `plant.png`.

Needs no ROS and trusts no node's own verdict: violations and promises are checked again here, on what was recorded.
"""

from rmpc_ros.report.write import write_report

__all__ = ["write_report"]
