"""Run with `funcrt test`."""


def test_an_order_of_nothing(function):
    assert function.call({"id": "a-3", "prices": []}).data == {"order": "a-3", "total": 0}


def test_an_order_without_an_id_is_a_dead_letter(function):
    outcome = function.call({"prices": [1]})
    assert outcome.dead
    assert "missing required field `id`" in outcome.error
