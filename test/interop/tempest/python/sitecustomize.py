"""Tempest sleeps ten seconds before it deletes a subnet, for the sake of slow
data planes. There is none here: this takes that sleep out of that one module,
in the processes that have this directory on PYTHONPATH."""
try:
    import time

    from tempest.lib.services.network import subnets_client

    class _Time:
        sleep = staticmethod(lambda seconds: None)

        def __getattr__(self, name):
            return getattr(time, name)

    subnets_client.time = _Time()
except ImportError:  # a tempest without it
    pass
