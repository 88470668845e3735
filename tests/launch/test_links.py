"""What messages between workers take can be asked again and again, while nothing of one time is left for the next."""

import daskconv
from daskconv.launch.links import messages
from daskconv.run.connections import _boxes


def _open_boxes():
    return len(_boxes)


def test_messages_over_dask_are_timed_whenever_somebody_asks():
    with daskconv.start("dask", workers=2, threads=1, dashboard=False) as client:
        for _ in range(5):
            found = messages(client, "dask")
            assert set(found) == {"comm_latency", "comm_message", "comm_bandwidth"}
            assert all(value > 0 for value in found.values()) and found["comm_bandwidth"] > 1e6
        assert set(client.run(_open_boxes).values()) == {0}
