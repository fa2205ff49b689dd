"""Any standard topic with a numeric field can be wired; what cannot is refused with a clear sentence."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="wires carry ROS messages")

from builtin_interfaces.msg import Time
from sensor_msgs.msg import FluidPressure, Temperature
from std_msgs.msg import Float64

from rmpc_ros.config.sections import Actuator, Sensor
from rmpc_ros.errors import ConfigError, MessageError
from rmpc_ros.nodes.wiring import Readings, Wire

STATES = ["xA", "T"]


def sensor(**changes: object) -> Sensor:
    given = {"topic": "t", "type": "sensor_msgs/Temperature", "field": "temperature", "state": "T", **changes}
    return Sensor(**given)  # type: ignore[arg-type]


def test_scale_and_offset_are_inverted_on_the_way_out() -> None:
    wire = Wire(sensor(scale=2.0, offset=273.15), STATES, "here")
    assert wire.value(Temperature(temperature=10.0)) == 2 * 10.0 + 273.15
    out = Wire(
        Actuator(topic="p", type="sensor_msgs/FluidPressure", field="fluid_pressure", input="u", scale=4.0, offset=1.0),
        ["u"],
        "here",
    )
    message = out.message(9.0, Time(sec=3), "plant")
    assert isinstance(message, FluidPressure)
    assert (message.fluid_pressure, message.header.stamp.sec, message.header.frame_id) == (2.0, 3, "plant")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"type": "no_such_msgs/Thing"}, "not installed"),
        ({"field": "humidity"}, "no field 'humidity'"),
        ({"field": "header"}, "does not hold one number"),
        ({"state": "pressure"}, "not one of xA, T"),
        ({"scale": 0.0}, "scale = 0"),
    ],
)
def test_what_cannot_be_wired_is_refused(changes: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Wire(sensor(**changes), STATES, "agent a, sensor t")


def test_a_number_that_is_not_finite_never_becomes_a_reading() -> None:
    wires = [
        Wire(sensor(), STATES, "here"),
        Wire(sensor(type="std_msgs/Float64", field="data", state="xA"), STATES, "here"),
    ]
    readings, refused = Readings(wires, 2), []
    hear_t, hear_x = (readings.listener(w, lambda: 5.0, refused.append) for w in wires)
    hear_t(Temperature(temperature=300.0))
    assert readings.fresh(0.0) is None
    hear_x(Float64(data=0.5))
    assert np.array_equal(readings.fresh(5.0), [0.5, 300.0])
    hear_t(Temperature(temperature=float("nan")))
    assert np.array_equal(readings.fresh(5.0), [0.5, 300.0])
    assert len(refused) == 1 and refused[0].startswith("not finite")
    assert readings.fresh(5.1) is None
    with pytest.raises(MessageError):
        wires[0].value(Temperature(temperature=float("inf")))


def test_a_value_is_as_old_as_its_message_says() -> None:
    wires = [
        Wire(sensor(), STATES, "here"),
        Wire(sensor(type="std_msgs/Float64", field="data", state="xA"), STATES, "here"),
    ]
    readings, refused = Readings(wires, 2, ahead=1.0), []
    hear_t, hear_x = (readings.listener(w, lambda: 5.0, refused.append) for w in wires)
    old = Temperature(temperature=300.0)
    old.header.stamp.sec = 3
    hear_t(old)
    hear_x(Float64(data=0.5))
    assert readings.fresh(4.0) is None and readings.fresh(3.0) is not None
    assert readings.fresh(3.0, before=5.0) is None
    assert readings.recent(5.0, 1.0, 6.0) is None  # only what has no stamp may have come earlier
    hear_t(Temperature(temperature=301.0))  # a driver that does not stamp
    assert readings.fresh(5.0) is not None
    old.header.stamp.sec = 7
    hear_t(old)
    assert len(refused) == 1 and refused[0].startswith("from the future: t is stamped 7 s, it is 5 s")
    assert np.array_equal(readings.fresh(5.0), [0.5, 301.0])
