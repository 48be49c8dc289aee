"""What `qworker run mysite.worker` is given: Django first, then all modules with tasks."""

import os

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "mysite.settings")
django.setup()

import orders.tasks  # noqa: E402, F401 — it registers its tasks, and needs Django to be set up

from mysite.background import app  # noqa: E402

__all__ = ["app"]
