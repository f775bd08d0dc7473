"""Metrics of one process, and of several in one text."""

from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from dragoman import metrics
from dragoman.grpc_worker import StatusCode


def samples(text: bytes) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    families = text_string_to_metric_families(text.decode())
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


def observed(registry: CollectorRegistry, calls: int) -> CollectorRegistry:
    observer = metrics.CallMetrics()
    registry.register(observer)
    for _ in range(calls):
        observer("/a.B/C", StatusCode.OK, 0.00002)
    observer("/a.B/C", StatusCode.CANCELLED, 20.0)
    return registry


def test_calls_are_counted_by_method_and_status() -> None:
    found = samples(metrics.exposition(observed(CollectorRegistry(), 3)))
    method = ("method", "/a.B/C")
    assert found["dragoman_grpc_calls_total", (("code", "OK"), method)] == 3
    assert found["dragoman_grpc_calls_total", (("code", "CANCELLED"), method)] == 1
    assert found["dragoman_grpc_call_seconds_bucket", (("le", "1e-05"), method)] == 0
    assert found["dragoman_grpc_call_seconds_bucket", (("le", "2.5e-05"), method)] == 3
    assert found["dragoman_grpc_call_seconds_bucket", (("le", "+Inf"), method)] == 4
    assert found["dragoman_grpc_call_seconds_count", (method,)] == 4


def test_a_registry_tells_about_its_process() -> None:
    names = {name for name, _ in samples(metrics.exposition(metrics.new_registry()))}
    assert {"process_cpu_seconds_total", "process_resident_memory_bytes", "python_info"} <= names


def test_families_may_be_made_when_asked_for() -> None:
    registry = CollectorRegistry()
    queue = [1, 2, 3]
    registry.register(
        metrics.Collected(
            lambda: [
                metrics.gauge("queue_length", "Waiting.", (), [((), len(queue))]),
                metrics.counter("seen", "Seen.", ("kind",), [(("a",), 7)]),
            ]
        )
    )
    queue.append(4)
    found = samples(metrics.exposition(registry))
    assert found["queue_length", ()] == 4
    assert found["seen_total", (("kind", "a"),)] == 7


def test_the_metrics_of_workers_are_told_apart_by_a_label() -> None:
    texts = {
        str(number): metrics.exposition(observed(CollectorRegistry(), calls)).decode()
        for number, calls in enumerate((3, 5))
    }
    merged = metrics.merge_expositions(texts)
    found = samples(merged)
    method = ("method", "/a.B/C")
    assert found["dragoman_grpc_calls_total", (("code", "OK"), method, ("worker", "0"))] == 3
    assert found["dragoman_grpc_calls_total", (("code", "OK"), method, ("worker", "1"))] == 5
    assert found["dragoman_grpc_call_seconds_count", (method, ("worker", "1"))] == 6
    assert merged.decode().count("# TYPE dragoman_grpc_calls_total counter") == 1
