"""MindIE: where each setting matters."""

from __future__ import annotations

from typing import Any

from tests.settings.traffic import BURST, HEAVY, MIXED, SHARED, STEADY
from tests.settings.walk import Case, merged

BASE: dict[str, Any] = {
    "model": "qwen3-8b",
    "traffic": MIXED,
    "deployment": {"accelerator": "ascend-910b3", "engine": {"name": "mindie"}},
}
MIX = {"templateType": "Mix", "maxPrefillTokens": 256}
FEW: dict[str, Any] = {"deployment": {"kv_blocks": 5}}
TIGHT = {"maxSeqLen": 600, "maxInputTokenLen": 500, "maxIterTimes": 90}
CROWD = merged(BURST, FEW)
LONGEST = {"maxSeqLen": 9200, "maxInputTokenLen": 9100, "maxPrefillTokens": 9200}


def plugin(kind: str, **settings: Any) -> dict[str, Any]:
    """``plugin_params``."""
    return {"plugin_params": {"plugin_type": kind, **settings}}


CASES: dict[str, Case] = {
    "version": Case("2.0"),
    "templateType": Case("Mix"),
    "cacheBlockSize": Case(64, engine=TIGHT, changes={"deployment": {"kv_blocks": 10}}),
    "maxPrefillBatchSize": Case(1, changes=BURST),
    "maxPrefillTokens": Case(600, engine=TIGHT, changes=BURST),
    "prefillTimeMsPerReq": Case(1000, engine={"supportSelectBatch": True}, changes=STEADY),
    "decodeTimeMsPerReq": Case(1, engine={"supportSelectBatch": True}, changes=STEADY),
    "prefillPolicyType": Case(1),
    "decodePolicyType": Case(1),
    "maxBatchSize": Case(2),
    "maxIterTimes": Case(10),
    "maxPreemptCount": Case(4, engine=TIGHT | {"cpuMemSize": 4}, changes=CROWD),
    "supportSelectBatch": Case(True, changes=STEADY),
    "stageSelectPolicy": Case(2, changes=STEADY),
    "maxQueueDelayMicroseconds": Case(500_000),
    "maxFirstTokenWaitTime": Case(1, engine=TIGHT, changes=CROWD),
    "dynamicBatchSizeEnable": Case(True, engine={"maxBatchSize": 8, "decodeExpectedTime": 1}, changes=STEADY),
    "prefillExpectedTime": Case(1, engine={"stageSelectPolicy": 2}, changes=STEADY),
    "decodeExpectedTime": Case(1, engine={"stageSelectPolicy": 2}, changes=STEADY),
    "bufferResponseEnabled": Case(True),
    "enableChunkedPrefill": Case(True),
    "prefillChunkSize": Case(32, engine=MIX),
    "maxNumPartialPrefills": Case(1, engine=MIX),
    "maxLongPartialPrefills": Case(1, engine=MIX | {"longPrefillTokenThreshold": 30, "prefillChunkSize": 32}),
    "longPrefillTokenThreshold": Case(30, engine=MIX | {"maxLongPartialPrefills": 1, "prefillChunkSize": 32}),
    "enablePrefixCache": Case(True, changes=merged(SHARED, {"traffic": {"synthetic": {"prefixes": {"shared_tokens": 300}}}})),
    "maxSeqLen": Case(150, engine={"maxInputTokenLen": 120, "maxIterTimes": 100}, changes={"traffic": {"too_long": "skip"}}),
    "maxInputTokenLen": Case(100),
    "inferMode": Case("dmi"),
    "role": Case("P"),
    "tokenTimeout": Case(1, engine={"maxBatchSize": 1}, changes={"traffic": {"synthetic": {"requests": 120}}}),
    "e2eTimeout": Case(1, engine={"maxBatchSize": 1}, changes={"traffic": {"synthetic": {"requests": 40}}}),
    "npuMemSize": Case(2, engine=LONGEST, changes=HEAVY),
    "cpuMemSize": Case(4, 0.05, engine=TIGHT | {"maxPreemptCount": 4}, changes=CROWD),
    "npu_memory_fraction": Case(0.36, engine=LONGEST, changes=HEAVY),
    "plugin_params": Case({"plugin_type": "splitfuse"}),
    "plugin_params.plugin_type": Case("mtp", "splitfuse"),
    "plugin_params.num_speculative_tokens": Case(3, engine=plugin("mtp")),
    "plugin_params.level": Case(6, engine=plugin("la")),
    "plugin_params.window": Case(2, engine=plugin("la")),
    "plugin_params.guess_set_size": Case(2, engine=plugin("la")),
    "plugin_params.decoding_length": Case(4, engine=plugin("memory_decoding")),
    "plugin_params.acceptance_rate": Case(0.2, engine=plugin("mtp")),
    "async_scheduling": Case(True),
}
