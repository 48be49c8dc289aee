"""Which proxy requests to Azure go by: HTTPS_PROXY, HTTP_PROXY and NO_PROXY say so, and nothing else is read.

aiohttp would look into the environment at each request, which doubles what one costs, and would also take a password
out of ~/.netrc, which no request to Azure is to carry.
"""

from typing import Any, Final
from urllib.parse import urlsplit
from urllib.request import getproxies_environment, proxy_bypass_environment  # type: ignore[attr-defined]

from yarl import URL

from qworker.errors import ConfigurationError

_SCHEMES: Final = frozenset({"http", "https"})


def proxy_options(url: str) -> dict[str, Any]:
    """Return the options of aiohttp by which a request to this URL's host is sent. Raises ConfigurationError."""
    parts = urlsplit(url)
    proxies = getproxies_environment()
    proxy = proxies.get(parts.scheme.lower())
    if not proxy or proxy_bypass_environment(parts.netloc.rpartition("@")[2], proxies):
        return {}
    return {"proxy": _parsed(proxy, f"{parts.scheme.upper()}_PROXY")}


def _parsed(proxy: str, variable: str) -> URL:
    """Return a proxy's URL; it may hold a password, so no error repeats it."""
    try:
        parsed = URL(proxy.strip() if "://" in proxy else f"http://{proxy.strip()}")
        sound = parsed.scheme in _SCHEMES and bool(parsed.host) and parsed.port is not None
    except ValueError:
        sound = False
    if not sound:
        raise ConfigurationError(f"{variable} in the environment is no proxy: it takes http://HOST:PORT")
    return parsed
