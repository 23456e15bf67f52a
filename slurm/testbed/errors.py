"""What can go wrong with the testbed, as types.

TestbedError            the cluster could not do what was asked; the text has the log's end
└── TestbedUnavailable  this machine lacks what the cluster is made of; the text says what
"""


class TestbedError(RuntimeError):
    """The cluster could not do what was asked."""

    __test__ = False  # pytest collects classes by the name Test*


class TestbedUnavailable(TestbedError):
    """This machine cannot run the cluster; the text names what is missing and the repair."""
