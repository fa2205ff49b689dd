"""ROS 2 nodes: adapters between messages and the rooms below. Only this room and the bring-up import ROS."""
