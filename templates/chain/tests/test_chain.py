"""Both functions together. Run with `funcrt test`."""


def test_only_a_large_order_is_told_of(function_app):
    function_app.publish("orders", {"id": "a-1", "prices": [100, 20]}, "order.placed")
    function_app.publish("orders", {"id": "a-2", "prices": [3.5]}, "order.placed")
    function_app.run()
    notices = [event.data.decode() for event in function_app.outputs("notices")]
    assert notices == ["order a-1 is large: 120.00"]
    assert function_app.dead == []
