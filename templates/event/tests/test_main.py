"""Run with `funcrt test`."""


def test_a_small_order(function):
    assert function.call({"id": "a-2", "total": 12}).data == {"id": "a-2", "size": "small"}


def test_an_order_without_a_total_is_tried_again(function):
    outcome = function.call({"id": "a-3"})
    assert outcome.error == "KeyError: 'total'"
    assert outcome.retry_after_s is not None
