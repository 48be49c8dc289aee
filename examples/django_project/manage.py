"""A Django project whose views enqueue jobs, and a worker for them.

docs/django.md is about it. In this folder:

python manage.py migrate --run-syncdb
python manage.py test
python manage.py runserver
qworker run mysite.worker
"""

import os
import sys

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "mysite.settings")
    from django.core.management import execute_from_command_line

    execute_from_command_line(sys.argv)
