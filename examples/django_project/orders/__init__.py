"""An app of the project: orders, and the jobs that follow from them."""
