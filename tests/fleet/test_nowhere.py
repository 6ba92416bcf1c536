"""Who was turned away before any replica took him counts against none."""

import numpy as np

import sim
from sim.metrics.result import Result

DOOR = """
model: llama-3.1-8b
deployment: {accelerator: h100-sxm, engine: vllm, replicas: 2}
router: least_outstanding
admission: {name: token_bucket, rate: 5, burst: 2}
traffic:
  synthetic:
    arrival: {process: constant, rate: 40/s}
    lengths: {kind: fixed, prompt_tokens: 100, output_tokens: 20}
    requests: 80
slo: {ttft: 1s}
"""


def of_replicas(result: Result) -> list[int]:
    return [row["requests"] for row in result.summary.as_dict()["replicas"]]


def test_who_is_refused_at_the_door_is_of_no_replica() -> None:
    result = sim.run(sim.loads(DOOR))
    count, replica = result.summary.as_dict()["requests"], result.columns["replica"]
    assert count["rejected"] > 20 and count["finished"] > 5
    assert (result.columns["status"][replica < 0] == 1).all() and int(np.count_nonzero(replica < 0)) == count["rejected"]
    assert of_replicas(result) == [int(np.count_nonzero(replica == k)) for k in (0, 1)]
    assert sum(of_replicas(result)) == count["finished"]
    assert {row["attainment"] for row in result.summary.as_dict()["replicas"]} == {
        1.0
    }  # those who were served were served in time


def test_who_gives_up_at_the_door_is_of_no_replica() -> None:
    clients = "clients: {name: simple, max_attempts: 2, deadline: 30s}\n"
    result = sim.run(sim.loads(DOOR + clients))
    assert (result.columns["replica"] >= 0).sum() == result.summary.as_dict()["requests"]["finished"] == sum(of_replicas(result))


def test_who_an_ollama_answers_503_is_of_the_model_that_was_asked_for() -> None:
    result = sim.run(sim.load("ollama-three-models", ["traffic.synthetic.requests=300"]))
    told = result.summary.as_dict()
    rejected = told["requests"]["rejected"]
    assert rejected > 0 and sum(f"{rejected} requests rejected" in sentence for sentence in told["warnings"]) == 1, told[
        "warnings"
    ]
    assert [row["requests"] for row in told["classes"]] == of_replicas(result)
    assert [row["attainment"] for row in told["classes"]] == [row["attainment"] for row in told["replicas"]]
