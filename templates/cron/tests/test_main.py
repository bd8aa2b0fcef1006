"""Run with `funcrt test`."""


def test_a_report_a_day(function_app):
    function_app.advance(3 * 86400)
    assert len(function_app.outputs("reports")) == 3
