"""GEAR: a compressed cache of keys and values whose quantisation error is repaired by low rank and outliers."""

from workbench.paper import Experiment, Paper, loaded_later, view_in
from workbench.papers.gear.claims import CLAIMS

PAPER = Paper(
    key="gear",
    title="GEAR: An Efficient KV Cache Compression Recipe for Near-Lossless Generative Inference of LLM",
    authors=("Hao Kang, Qingru Zhang, Souvik Kundu, Geonhwa Jeong, Zaoxing Liu, Tushar Krishna, Tuo Zhao"),
    year=2024,
    arxiv="2403.05527",
    family="compression",
    summary=(
        "While a language model writes, the keys and values of all tokens before fill its memory, and in 2 bits their "
        "errors lead it astray. GEAR takes the most extreme entries out exactly, quantises the rest, and adds a "
        "low-rank approximation of the error that is left, all as the cache grows. The authors report accuracy close "
        "to half precision at 2 bits, with a peak memory that is 2.39 times smaller."
    ),
    state="complete; tasks of chains of thought with models of billions of parameters are not tested",
    claims=CLAIMS,
    view=view_in("kv_cache", cache="tiny_lm"),
    experiments=(
        Experiment(
            key="errors",
            title="Errors of compressed keys, values and attention",
            kind="accuracy",
            run=loaded_later("gear.errors", "errors"),
        ),
        Experiment(
            key="drift",
            title="A language model that decodes over compressed caches",
            kind="accuracy",
            run=loaded_later("gear.drift", "drift"),
        ),
        Experiment(
            key="memory",
            title="Bytes of caches of large models' shapes",
            kind="accuracy",
            run=loaded_later("gear.memory", "memory"),
        ),
        Experiment(
            key="tradeoffs",
            title="Weights rounded in groups, in the pruning explorer: quality and bytes",
            kind="accuracy",
            run=loaded_later("gear.tradeoffs", "tradeoffs"),
        ),
        Experiment(
            key="tradeoffs_embedded",
            title="Weights rounded in groups, on the encoder that ships with the workbench",
            kind="accuracy",
            run=loaded_later("gear.tradeoffs", "tradeoffs_embedded"),
        ),
        Experiment(
            key="decoding",
            title="Time of one decoding step",
            kind="timing",
            run=loaded_later("gear.decoding", "decoding"),
        ),
    ),
)
