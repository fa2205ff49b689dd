"""Networked robust model predictive control for ROS 2.

Every unit of a plant is an agent that solves its own robust MPC, promises its neighbours a set in which its states will
stay, and treats their promises as one more disturbance.
"""

from pkgutil import extend_path

# From a checkout's root this folder shadows the installed package that holds the generated messages (rmpc_ros.msg):
# both folders together are the package.
__path__ = extend_path(__path__, __name__)

__version__ = "0.1.0"
