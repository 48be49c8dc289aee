"""The samples of several processes as those of one: added up, and written as Prometheus reads them."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

from qworker.observe.health.reports import Key, Samples

_SUFFIXES: Final[Mapping[str, tuple[str, ...]]] = {
    "counter": ("_total",),
    "histogram": ("_bucket", "_count", "_sum"),
    "gauge": ("",),
}


def samples_of(registry: CollectorRegistry) -> Samples:
    """Return what was counted, without the times at which counting began."""
    return {
        key_of(sample): sample.value
        for family in registry.collect()
        for sample in family.samples
        if not sample.name.endswith("_created")
    }


def key_of(sample: Sample) -> Key:
    """Return what tells a sample from all others."""
    return sample.name, tuple(sorted(sample.labels.items()))


def gauges_of(registry: CollectorRegistry) -> frozenset[str]:
    """Return the names of those that say how things are, and so end with their process."""
    return frozenset(family.name for family in registry.collect() if family.type == "gauge")


def text_of_all(registry: CollectorRegistry, others: Iterable[Samples], accept: str) -> tuple[bytes, str]:
    """Return the sum of a registry and other samples of the same families as text, and which kind of text that is."""
    encode, content_type = choose_encoder(accept)
    return encode(_Sum(registry, others)), content_type


class _Sum(Collector):
    def __init__(self, registry: CollectorRegistry, others: Iterable[Samples]) -> None:
        self._registry = registry
        self._others = (samples_of(registry), *others)

    def collect(self) -> Iterator[Metric]:
        sums: dict[str, dict[Key, float]] = {}
        for samples in self._others:
            for key, value in samples.items():
                of_family = sums.setdefault(_family_of(key[0]), {})
                of_family[key] = of_family.get(key, 0.0) + value
        for family in self._registry.collect():
            names = {family.name + suffix for suffix in _SUFFIXES[family.type]}
            summed = Metric(family.name, family.documentation, family.type)
            for (name, labels), value in sums.get(family.name, {}).items():
                if name in names:
                    summed.add_sample(name, dict(labels), value)
            yield summed


def _family_of(name: str) -> str:
    for suffix in ("_total", "_bucket", "_count", "_sum"):
        if name.endswith(suffix):
            return name.removesuffix(suffix)
    return name
