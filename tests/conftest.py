"""For all tests."""

import signal

# A shell without job control starts what it puts in the background with SIGINT ignored, and what
# that starts would inherit it: the tests of Ctrl-C need it as at a terminal.
signal.signal(signal.SIGINT, signal.default_int_handler)
