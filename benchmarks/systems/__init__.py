"""One file a system: `start(run)` in the process that measures, `open_client` in the driver."""
