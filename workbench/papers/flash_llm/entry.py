"""Flash-LLM: weights are loaded sparse and multiplied dense, because memory is what token generation waits for."""

from workbench.paper import Experiment, Paper, loaded_later, view_in
from workbench.papers.flash_llm.claims import CLAIMS

PAPER = Paper(
    key="flash_llm",
    title=(
        "Flash-LLM: Enabling Cost-Effective and Highly-Efficient Large Generative Model Inference with Unstructured "
        "Sparsity"
    ),
    authors=(
        "Haojun Xia, Zhen Zheng, Yuchao Li, Donglin Zhuang, Zhongzhu Zhou, Xiafei Qiu, Yong Li, Wei Lin, "
        "Shuaiwen Leon Song"
    ),
    year=2023,
    arxiv="2309.10285",
    family="sparse weights",
    summary=(
        "A model that writes one token at a time reads all of its weights for a few products each, so the machine "
        "waits for memory while its multipliers idle. Flash-LLM stores pruned weights sparse, reads only what is left, "
        "expands each tile on the chip, and multiplies the zeros as well. The authors report a kernel that is 1.4 to "
        "2.1 times as fast as the dense one on a GPU at 70 to 90 per cent of unstructured sparsity."
    ),
    state="complete; the GPU kernel and its times are not tested, a model of the machine and a CPU kernel stand in",
    claims=CLAIMS,
    view=view_in("pruning", model="tiny_lm", cost="read"),
    experiments=(
        Experiment(
            key="format",
            title="Bytes, bank conflicts and exactness of Tiled-CSL",
            kind="accuracy",
            run=loaded_later("flash_llm.packing", "packing"),
        ),
        Experiment(
            key="replay",
            title="The paper's twelve products on a model of its GPU",
            kind="modelled",
            run=loaded_later("flash_llm.replay", "replay"),
        ),
        Experiment(
            key="kernel",
            title="Products of few columns on this CPU",
            kind="timing",
            run=loaded_later("flash_llm.products", "products"),
        ),
        Experiment(
            key="language",
            title="A language model pruned, and trained again",
            kind="accuracy",
            run=loaded_later("flash_llm.language", "language"),
        ),
        Experiment(
            key="decoding",
            title="Tokens per second of decoders",
            kind="timing",
            run=loaded_later("flash_llm.decoding", "decoding"),
        ),
    ),
)
