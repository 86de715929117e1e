from benchmarks.transports import CLIENTS, measure


def test_every_client_is_measured_on_the_same_calls():
    found = measure(calls=40, at_once=4)
    assert found.keys() == CLIENTS.keys()
    assert all(each["cpu_ms"] > 0 and each["calls_per_s"] > 0 for each in found.values())
