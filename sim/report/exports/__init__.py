"""Results in the formats that other tools read, one registered class per file.

``servesim run SCENARIO --export vllm-bench,perfetto`` and `write_exports` write them beside the result.
"""

from sim.report.exports._base import Export, write_exports
from sim.report.exports.requests_csv import write_requests_csv
from sim.report.exports.vllm_bench import vllm_bench, write_vllm_bench

__all__ = ["Export", "vllm_bench", "write_exports", "write_requests_csv", "write_vllm_bench"]
