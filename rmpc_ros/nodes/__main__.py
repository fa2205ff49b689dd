"""`python -m rmpc_ros.nodes FILE`: the nodes of one process, as `rmpc run` starts them."""

import sys
from pathlib import Path

from rmpc_ros.nodes.process import packed

sys.exit(packed(Path(sys.argv[1])))
