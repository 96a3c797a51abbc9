"""Making many shards: waveforms and log-mels in processes, embeddings on the accelerator."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any

from tinymu_jax.checkpoint import Checkpoint, encoder_of
from tinymu_jax.data.features import as_embeddings, read
from tinymu_jax.data.musicskills import ClipQuestions
from tinymu_jax.data.shards import Featured, Shard, read_features, write_shard
from tinymu_jax.data.workers import CONTEXT, worker_pool
from tinymu_jax.errors import InputError

ENCODED_TOGETHER = 8
"""Clips in one call of the encoder."""


Progress = Callable[[int, int], Any]
"""Called with the clips that are done, and all."""


class Count:
    """Clips that are done, told to `progress`."""

    def __init__(self, done: int, total: int, progress: Progress) -> None:
        self.done, self.total, self.progress = done, total, progress
        progress(done, total)

    def show(self, more: int) -> None:
        """Tells that `more` clips are done beyond those before."""
        self.progress(self.done + more, self.total)


_shared: Any = None
"""In a worker: the clips that all workers have done."""


def _start_worker(counter: Any) -> None:
    global _shared
    _shared = counter
    # Workers share the cores; what they compute is small.
    os.environ["JAX_PLATFORMS"] = "cpu"


def _work(shard: Shard) -> dict[str, Any]:
    def done() -> None:
        with _shared.get_lock():
            _shared.value += 1

    return write_shard(shard, read_features(shard, done))


def make_shards(
    work: Sequence[Shard], workers: int, count: Count
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Makes shards in processes; yields number and page of each as it is done."""
    if not work:
        return
    counter = CONTEXT.Value("q", 0)
    workers = min(workers or os.cpu_count() or 1, len(work))
    with worker_pool(workers, _start_worker, (counter,)) as pool:
        futures: dict[Future, int] = {pool.submit(_work, s): i for i, s in enumerate(work)}
        while futures:
            finished, _ = wait(futures, timeout=0.5, return_when=FIRST_COMPLETED)
            count.show(counter.value)
            for future in finished:
                yield futures.pop(future), future.result()


def encode_shards(
    work: Sequence[Shard], encoder: Checkpoint, count: Count
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Makes shards of embeddings: recordings are read in threads, and encoded here in batches."""
    import jax

    from tinymu_jax.inference_layout import by_rows, unstack
    from tinymu_jax.listening import listen
    from tinymu_jax.models import matpac

    config, params, *_ = encoder_of(encoder)
    laid_out = jax.device_put(by_rows(unstack(params, matpac.param_axes(config))))
    made = 0

    def featured(shard: Shard, pool: ThreadPoolExecutor) -> Iterable[Featured]:
        nonlocal made

        def try_read(clip: ClipQuestions) -> Any:
            try:
                return read(clip.path, shard.features)
            except InputError as error:
                return error

        for start in range(0, len(shard.clips), ENCODED_TOGETHER):
            group = shard.clips[start : start + ENCODED_TOGETHER]
            clips = list(pool.map(try_read, group))
            good = [clip.samples for clip in clips if not isinstance(clip, InputError)]
            vectors = iter(listen(laid_out, good, config))
            for clip, heard in zip(group, clips, strict=True):
                fault = isinstance(heard, InputError)
                yield clip, heard if fault else as_embeddings(next(vectors)[0])
            made += len(group)
            count.show(made)

    with ThreadPoolExecutor() as pool:
        for number, shard in enumerate(work):
            yield number, write_shard(shard, featured(shard, pool), config.patch_size)
