"""The least that a project needs; a real one has a secret key of its own, and a server as its database."""

from pathlib import Path

BASE_DIR = Path(__file__).parents[1]
SECRET_KEY = "an example's"  # noqa: S105 — an example has none
DEBUG = True
INSTALLED_APPS = ["orders"]
ROOT_URLCONF = "mysite.urls"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": BASE_DIR / "db.sqlite3",
        "ATOMIC_REQUESTS": True,
        # Handlers run in threads of their own: a database in memory would be locked for them.
        "TEST": {"NAME": BASE_DIR / "test.sqlite3"},
    },
}
