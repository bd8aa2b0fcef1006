"""Run with `funcrt test`."""


def test_one_reading(function):
    assert function.call([{"value": 4}]).data == {"count": 1, "mean": 4.0}


def test_a_reading_that_is_none_stands_alone(function_app):
    for value in (1, "none", 3):
        function_app.publish("readings", {"value": value})
    function_app.run()
    assert [dead.event.json()["value"] for dead in function_app.dead] == ["none"]
    assert sum(event.json()["count"] for event in function_app.outputs("means")) == 2
