"""run_until_idle for tests in which jobs are to fail: the events say how."""

from functools import partial

from qworker import testing

run_until_idle = partial(testing.run_until_idle, raise_failures=False)
arun_until_idle = partial(testing.arun_until_idle, raise_failures=False)
