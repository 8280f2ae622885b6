"""Sparse CPU inference: int8 products with weights in constant blocks of 4 outputs by 1 input."""

from workbench.paper import Experiment, Paper, loaded_later, view_in
from workbench.papers.sparse_cpu_inference.claims import CLAIMS

PAPER = Paper(
    key="sparse_cpu_inference",
    title="An Efficient Sparse Inference Software Accelerator for Transformer-based Language Models on CPUs",
    authors=(
        "Haihao Shen, Hengyu Meng, Bo Dong, Zhe Wang, Ofir Zafrir, Yi Ding, Yu Luo, Hanwen Chang, Qun Gao, "
        "Ziheng Wang, Guy Boudoukh, Moshe Wasserblat"
    ),
    year=2023,
    arxiv="2306.16601",
    family="sparse weights",
    summary=(
        "Weights pruned at any places seldom run faster than dense int8 on a CPU, and large blocks cost accuracy. Here "
        "blocks of 4 outputs by 1 input are pruned while the model is trained, and four of them fill the operands of "
        "dot-product instructions, so that the inner loop is as dense as that of a dense product. The authors report "
        "products up to five times faster than dense int8 ones and an order of magnitude faster than other sparse "
        "libraries."
    ),
    state=(
        "complete; the paper's models and cloud machines are replaced by a small net, a sentence encoder and one CPU"
    ),
    claims=CLAIMS,
    view=view_in("pruning", point="blocks_4x1@0.7", cost="multiply_adds"),
    experiments=(
        Experiment(
            key="digits",
            title="Digits by a net that loses its blocks while it is trained",
            kind="accuracy",
            run=loaded_later("sparse_cpu_inference.digits", "digits"),
        ),
        Experiment(
            key="patterns",
            title="Larger blocks in a sentence encoder, without training",
            kind="accuracy",
            run=loaded_later("sparse_cpu_inference.patterns", "patterns"),
        ),
        Experiment(
            key="storage",
            title="Padding and bytes by density",
            kind="accuracy",
            run=loaded_later("sparse_cpu_inference.storage", "storage"),
        ),
        Experiment(
            key="products",
            title="One product, against dense ones and other sparse libraries",
            kind="timing",
            run=loaded_later("sparse_cpu_inference.products", "products"),
        ),
        Experiment(
            key="heights",
            title="One int8 product with blocks of other heights",
            kind="timing",
            run=loaded_later("sparse_cpu_inference.products", "heights"),
        ),
        Experiment(
            key="encoder_times",
            title="A sentence encoder, sparse from end to end: its time",
            kind="timing",
            run=loaded_later("sparse_cpu_inference.encoder", "times"),
        ),
        Experiment(
            key="encoder_quality",
            title="A sentence encoder, pruned to blocks while it is distilled: what it still knows",
            kind="accuracy",
            run=loaded_later("sparse_cpu_inference.encoder", "quality"),
        ),
        Experiment(
            key="tradeoffs",
            title="Masks of the pruning explorer, right after pruning: quality and bytes",
            kind="accuracy",
            run=loaded_later("sparse_cpu_inference.tradeoffs", "tradeoffs"),
        ),
        Experiment(
            key="tradeoffs_embedded",
            title="Masks of the pruning explorer, on the encoder that ships with the workbench",
            kind="accuracy",
            run=loaded_later("sparse_cpu_inference.tradeoffs", "tradeoffs_embedded"),
        ),
        Experiment(
            key="tradeoffs_recovered",
            title="Methods of the pruning explorer after the same short training",
            kind="accuracy",
            run=loaded_later("sparse_cpu_inference.tradeoffs", "tradeoffs_recovered"),
        ),
        Experiment(
            key="tradeoff_times",
            title="Every recorded point of the pruning explorer: times",
            kind="timing",
            run=loaded_later("sparse_cpu_inference.tradeoffs", "tradeoff_times"),
        ),
    ),
)
