"""Why a metric gives no count."""


class MetricError(Exception):
    """The text is what the user reads in the condition."""
