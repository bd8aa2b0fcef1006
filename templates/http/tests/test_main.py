"""Run with `funcrt test`."""


def test_a_call_over_http(function, function_app):
    reply = function_app.call(function.name, {"who": "me"})
    assert [event.json() for event in reply.outputs] == [{"greeting": "Hello me!"}]


def test_a_call_that_says_nothing(function):
    assert function.call({}).status == "reject"
