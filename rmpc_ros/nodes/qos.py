"""Quality of service by purpose. Both ends of a topic take their profile from here."""

from __future__ import annotations

from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy

# How many messages a writer keeps for a reader that asks again. More than a reader's depth of one, so that a recorder
# that is behind for a moment still gets every message.
KEEP = 50


def _profile(reliable: bool, depth: int, transient: bool = False) -> QoSProfile:
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST,
        depth=depth,
        reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
        durability=DurabilityPolicy.TRANSIENT_LOCAL if transient else DurabilityPolicy.VOLATILE,
    )


# Wired sensors and actuators: the newest value counts, a late one is worthless.
SENSOR = _profile(reliable=False, depth=5)
# Who acts on them reads the newest only.
SENSOR_NOW = _profile(reliable=False, depth=1)
# Measurements and commands: one per step, each wanted. The writer keeps some for a recorder that connects late.
STEP = _profile(reliable=True, depth=KEEP, transient=True)
# Who acts on measurements reads the newest only: after a pause nobody acts on what is past.
STEP_NOW = _profile(reliable=True, depth=1)
# Who applies commands reads all of them from now on: the step number says which one counts.
STEP_ALL = _profile(reliable=True, depth=KEEP)
# Promises: the last one stays valid for ever, also for an agent that joins (or comes back) later. No lifespan.
PROMISE = _profile(reliable=True, depth=KEEP, transient=True)
# Rounds of a step that is being negotiated: every one, of now; worthless afterwards.
ROUNDS = _profile(reliable=True, depth=KEEP)
# Reports, transitions: every one, in order, also for a recorder that connects late.
REPORT = _profile(reliable=True, depth=100, transient=True)
# Learned sets, models, policies: versioned, the newest for late joiners.
UPDATE = _profile(reliable=True, depth=1, transient=True)
# /diagnostics and markers.
STATUS = _profile(reliable=True, depth=KEEP)
# /clock as ROS 2 offers it.
CLOCK = _profile(reliable=False, depth=10)
# A recorder's readers hold many: bursts wait there, not at the writer.
RECORDED = 5000


def recording(profile: QoSProfile) -> QoSProfile:
    """What a recorder asks for to get everything that `profile` offers."""
    return _profile(
        reliable=profile.reliability == ReliabilityPolicy.RELIABLE,
        depth=RECORDED,
        transient=profile.durability == DurabilityPolicy.TRANSIENT_LOCAL,
    )
