"""Config files: `get_config(arg)`, and for sweeps `get_sweep(config)`; each docstring gives command, cost and result."""
