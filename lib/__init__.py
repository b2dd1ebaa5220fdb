"""The product: plan, cap, measure, reconcile, publish. Knows nothing of Prefect; README.md maps the rooms."""

__version__ = "0.1.0"
