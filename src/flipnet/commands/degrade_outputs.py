"""Where the results of `flipnet degrade` go: PNG files, or tar shards of pairs for training."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from flipnet.commands.degrade_methods import Degraded
from flipnet.commands.degrade_report import ResultRecord, ResultStatus
from flipnet.commands.outputs import make_folder
from flipnet.data.shards import EncodedPair, PairRecord, ShardWriter, encode_pair
from flipnet.images import Photo, write_photo
from flipnet.types import FlipnetError

MadeBy = Mapping[str, Any]


class Store(Protocol):
    """Takes the results of a run one by one."""

    def write(self, record: ResultRecord, target: Path, hq: Photo, result: Degraded, by: MadeBy) -> None:
        """Store a result and mark its record as written; FlipnetError where that cannot be done.

        Args:
            record: the result's record.
            target: where it goes as a file of its own.
            hq: the clean photo as it was read.
            result: the result.
            by: the method's `as_json`.
        """
        ...

    def close(self) -> None:
        """Complete what is unfinished; records of results that are lost by then become failures."""
        ...


class PngFiles:
    """Every result is a lossless PNG file of its own."""

    def write(self, record: ResultRecord, target: Path, hq: Photo, result: Degraded, by: MadeBy) -> None:
        """See `Store`; the clean photo's RGB profile stays, as its pixel values were degraded as they are."""
        assert result.lq is not None
        # The result of a gray photo may have colours, which a gray profile cannot describe.
        profile = hq.icc_profile if (hq.icc_profile or b"")[16:20] == b"RGB " else None
        make_folder(target.parent)
        write_photo(target, Photo(result.lq, icc_profile=profile), format="png")
        record.output, record.status = target, ResultStatus.WRITTEN

    def close(self) -> None:
        """Nothing is unfinished."""


def encoded_pair(record: ResultRecord, result: Degraded, by: MadeBy) -> EncodedPair:
    """Return the members of a result's pair, as they go into a shard."""
    assert result.lq is not None
    method, phi, model, steps = (by[name] for name in ("method", "phi", "model", "steps"))
    made = PairRecord(method, record.seed or 0, phi, model, steps, result.parameters)
    return encode_pair(record.key or "", result.hq, result.lq, made)


class PairShards:
    """Results and their clean faces, `per_shard` pairs to a tar file; see `flipnet.data.shards`.

    Raises:
        FlipnetError: the folder cannot be made, or holds a damaged shard.
    """

    def __init__(self, folder: Path, per_shard: int) -> None:
        self._writer = ShardWriter(folder, per_shard)
        self._written: list[ResultRecord] = []

    @property
    def done(self) -> set[str]:
        """Keys of the pairs that are in the folder's shards."""
        return self._writer.done

    def write(self, record: ResultRecord, target: Path, hq: Photo, result: Degraded, by: MadeBy) -> None:
        """See `Store`."""
        self.add(record, encoded_pair(record, result, by))

    def add(self, record: ResultRecord, pair: EncodedPair) -> None:
        """Store a pair that is encoded already, and mark its record as written; errors as in `Store.write`."""
        try:
            self._writer.append(record.key or "", pair)
        except FlipnetError as error:
            self._fail_lost(error)
            raise
        record.output, record.status = self._writer.folder, ResultStatus.WRITTEN
        self._written.append(record)

    def close(self) -> None:
        """Complete the last shard; see `Store`."""
        try:
            self._writer.close()
        except FlipnetError as error:
            self._fail_lost(error)

    def _fail_lost(self, error: FlipnetError) -> None:
        # A shard that cannot be completed takes along the pairs already in it.
        for record in self._written:
            if record.key not in self.done:
                record.status, record.output, record.cause = ResultStatus.FAILED, None, str(error)
