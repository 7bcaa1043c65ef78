"""The report's parts: charts, methods, and the page that holds them.  ``python -m analysis.report`` is the command."""
