"""Sound files of others in small: results of benchmark tools, traffic as JSON lines, traffic as tables."""

from typing import Any

from tests.study.test_bench import AGGREGATE, INFX, LLMPERF, TGI, guidellm, records, stage, vllm
from tests.workload.test_formats import BLIS, MOONCAKE, SHAREGPT, WEKA

RESULTS: list[Any] = [
    vllm(),
    vllm(request_rate=2.0, start_times=[0.0, 1.0, 2.0, 3.0]), AGGREGATE, stage(), guidellm({"type_": "concurrent", "streams": 2}), records(2), [LLMPERF],
    [INFX], TGI, [{"n_prompt": 512, "n_gen": 0, "avg_ts": 2400.0}],
    {"backend": "sglang", "random_input_len": 9, "completed": 3, "total_input_tokens": 9, "total_output_tokens": 9, "duration": 2.0, "median_ttft_ms": 5},
]  # fmt: skip
ROWS: list[Any] = [
    MOONCAKE, SHAREGPT, [WEKA], [{"prompt": "what?", "output_tokens": 3}] * 2,
    [{"chat_id": 1, "parent_chat_id": -1, "timestamp": 0.5, "input_length": 20, "output_length": 2, "type": "text", "turn": 1, "hash_ids": [1, 2]}] * 2,
    [{"input_toks": 5, "output_toks": 2, "arrival_time_ns": 5, "input_tok_ids": [1, 2, 3, 4, 5]}] * 2,
    [{"session_id": 1, "arrival_time_ns": 0, "sub_requests": [{"input_toks": 5, "output_toks": 1, "tool_duration_ns": 2e9}]}],
    [{"trace_id": "t", "start_time": "2026-01-01T00:00:00Z", "attributes": {"gen_ai.usage.input_tokens": 5, "gen_ai.usage.output_tokens": 2}}],
    [{"resourceSpans": [{"scopeSpans": [{"spans": [{"traceId": "a", "startTimeUnixNano": "5", "attributes": [
        {"key": "gen_ai.usage.input_tokens", "value": {"intValue": "9"}}, {"key": "gen_ai.usage.output_tokens", "value": {"intValue": 2}}]}]}]}]}],
]  # fmt: skip
TABLES: list[str] = [
    BLIS, "Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type\n5,1,2,ChatGPT,4,3,7,API log\n6,,2,GPT-4,4,0,4,x\n",
    "TIMESTAMP,NumImages,ContextTokens,GeneratedTokens\n2024-10-08 00:00:00.184,0,125,6\n2024-10-08 00:00:01,2,31,1\n",
    "arrival_s,prompt_size,token_size,priority,adapter,session_id,max_tokens,hash_ids\n0,10,5,3,x,s,9,1\n1,20,5,,,t,4,1\n",
]  # fmt: skip
