"""Run with `funcrt test`."""


def test_a_request_is_answered(function):
    answer = function.request("GET", "/NAME/me?loud=1").response
    assert (answer.status, answer.json()) == (200, {"greeting": "Hello me!"})


def test_a_request_that_says_nothing(function):
    answer = function.request("POST", "/NAME", json={}).response
    assert (answer.status, answer.json()) == (422, {"error": "say who"})


def test_as_a_host_calls_it(function_app):
    answer = function_app.request("POST", "/NAME", json={"who": "you"})
    assert answer.header("content-type") == "application/json"
    assert answer.json() == {"greeting": "Hello you!"}
