"""Settings of the attention view worth seeing, by method: what to turn, and what to look at."""

from widgets.views.attention_mask import Story

_ESTIMATOR = {"input": "minilm", "tokens": 128, "head": 8, "estimator": "trained_180", "group": "causal_batch"}
_SLASH = {"input": "slash", "tokens": 1024, "block": 64, "stride": 8, "threshold": 0.5, "delta": 77}
_PONET = {"input": "ponet", "tokens": 256, "layer": 1, "head": 2, "segments": "sentences"}
_TWINS = (
    'The "&" operator yields the bitwise AND of its arguments. The "|" operator yields the bitwise OR of its '
    "arguments. Lists are sorted in place."
)

STORIES = {
    "xattention": (
        Story(
            "A slash that the diagonal cannot see",
            _SLASH | {"sampler": "antidiagonal", "versus": "xattention_diagonal", "right": "keep"},
            "Queries look 77 and 78 keys back, and at key 100. Left, one antidiagonal of every tile is read: it "
            "meets every slash of width two, and the band of blocks along it is kept. Right, one diagonal is read, "
            "at the same cost: 77 and 78 are no multiples of the stride 8, so not one of its logits lies on the "
            "slash, and the band is gone.",
        ),
        Story(
            "A slash that nobody sees",
            _SLASH | {"delta": 76, "width": 1, "left": "met", "right": "keep"},
            "A slash of width one at an even offset. Antidiagonals of an even stride only meet odd offsets: of true "
            "attention they meet the column and nothing of the slash (left; choose true attention to see it), so its "
            "blocks are dropped. Turn the width to 2: it is back.",
        ),
        Story(
            "A real head",
            {"layer": 3, "head": 3, "versus": "oracle", "right": "keep"},
            "The tiny language model on text it was not trained on. Left, blocks by antidiagonal reading; right, the "
            "best blocks there are for the same share of mass. The curves below tell how far apart they are at every "
            "density.",
        ),
        Story(
            "65,536 tokens",
            {
                "input": "slash",
                "tokens": 65536,
                "block": 128,
                "stride": 16,
                "threshold": 0.5,
                "left": "estimate",
                "right": "keep",
            },
            "Too long to draw every pair: the pictures show blocks of 128 tokens, chosen from 1 logit in 16.",
        ),
    ),
    "pbs_attn": (
        Story(
            "Sort the keys",
            {
                "input": "heavy",
                "tokens": 4096,
                "block": 64,
                "segment": 4,
                "choose": "ratio",
                "kept_share": 0.25,
                "versus": "pbs_none",
                "right": "permuted",
            },
            "Two keys in a hundred are heavy, scattered over all blocks; both sides keep a quarter of the blocks. "
            "Right, unsorted, every block holds a few heavy keys and a quarter of the blocks holds half. Left, keys "
            "are sorted inside segments of 256: the heavy ones fill the first block of each segment, and the same "
            "quarter holds nearly all of the attention. Compare the first two rows of the table.",
        ),
        Story(
            "Sorted, and sorted back",
            {"input": "heavy", "tokens": 1024, "block": 64, "segment": 4, "left": "permuted", "right": "allowed"},
            "Left, in the order of the sorted keys, what is computed are solid blocks. Right, the same pairs in the "
            "original order: scattered columns. Softmax does not mind the order; the table says by how much the "
            "output differs from attention that sorted nothing.",
        ),
        Story(
            "A longer segment",
            {
                "input": "heavy",
                "tokens": 4096,
                "block": 64,
                "segment": 16,
                "choose": "ratio",
                "kept_share": 0.25,
                "left": "sorted",
                "right": "permuted",
            },
            "Segments of 1,024 tokens sort better, but the segment on the diagonal is always computed whole: the "
            "dense squares grow. Turn the segment and watch density and coverage.",
        ),
    ),
    "sea": (
        Story(
            "A narrow picture holds the mask",
            {"tokens": 128, "cells": 32, "keys_per_query": 12, "left": "cells", "right": "allowed"},
            "Left, 128 queries times 32 cells: the chosen cells of the compressed estimate. Right, the same cells "
            "stretched to the keys that they stand for. A later query sees more keys, so a cell fans out like a "
            "wedge.",
        ),
        Story(
            "Budget flows between heads",
            {
                "input": "minilm",
                "tokens": 128,
                "cells": 32,
                "keys_per_query": 12,
                "group": "batch",
                "left": "cells",
                "right": "allowed",
            },
            "Cells are ranked over all heads together: sharp heads need few, flat ones take more. The table says "
            "what this head spends beside the others; turn the head, or rank per query, and compare.",
        ),
        Story(
            "What 180 steps teach",
            _ESTIMATOR | {"versus": "sea_untrained", "right": "estimate"},
            "Left, the estimate after 180 steps of training; right, before: every cell alike, so chance decides which "
            "are chosen. Turn the training back: after 20 steps only the first keys stand out, after 60 there is a "
            "broad band around the diagonal, too. The first row of the table says how much attention is covered.",
        ),
        Story(
            "Where the linear pass looks",
            _ESTIMATOR | {"left": "linear", "right": "estimate"},
            "Left, what the linear pass brings to every query: in the left half places, in the right half values. "
            "For this head all rows look alike, an average over the whole text; the table says by how little they "
            "differ. So the diagonal at the right was learnt from the values, which the decoder sees as well. Turn "
            "to head 5 or 6: there the rows do differ.",
        ),
        Story(
            "Longer than it was taught",
            _ESTIMATOR | {"tokens": 512, "versus": "sea_oracle", "right": "estimate"},
            "Trained on windows of 128 tokens, shown 512. Right, the oracle's estimate: one strong diagonal over the "
            "whole text. Left, the estimator draws one that crosses all cells within some 150 tokens, and then starts "
            "again: it learnt places in the text, not shares of its length. Compare the first rows of the table.",
        ),
    ),
    "combiner": (
        Story(
            "No cell is zero",
            {"tokens": 256, "pattern": "fixed", "part": 16, "left": "attention", "right": "effective", "row": 200},
            "Queries read their own segment of 16 directly and every earlier segment through one summary, so no key "
            "is lost and the cost is that of a sparse pattern. The bars below show one query: plain bars direct, "
            "hatched ones through a summary.",
        ),
        Story(
            "One token per segment: full attention",
            {"tokens": 256, "pattern": "fixed", "part": 1, "left": "attention", "right": "effective", "row": 200},
            "Segments of one token summarise nothing: this is full attention, at full cost. So it is with one "
            "segment of all 256. In between the cost falls to the 1.5th power of the length.",
        ),
        Story(
            "Binary digits choose the blocks",
            {"tokens": 256, "pattern": "logsparse", "left": "attention", "right": "effective", "row": 203},
            "Query 203 is 11001011 in binary: one summary for each digit 1, of 128, 64, 8, 2 and 1 keys. Step the "
            "query and watch the digits.",
        ),
        Story(
            "Beside the sparse pattern alone",
            {
                "tokens": 256,
                "pattern": "fixed",
                "part": 16,
                "versus": "combiner_alone",
                "right": "effective",
                "row": 200,
            },
            "Right, the sparse pattern that this variant starts from: what it leaves out weighs nothing. Left, "
            "Combiner at about the same cost.",
        ),
    ),
    "ponet": (
        Story(
            "Without the product",
            _PONET | {"use_lmp": False, "fuse": False, "left": "fused", "right": "likeness"},
            "Global and segment pooling give every token of a sentence the same vector. Left, the fused output, tokens "
            "by channels: one stripe per sentence. Right, the likeness of its rows: a darkest square per sentence. "
            "The table counts the rows that differ, one per sentence and one for [CLS] and [SEP]. Tick the product "
            "with every token's own projection: all rows differ again.",
        ),
        Story(
            "Three ranges",
            _PONET | {"left": "ga", "right": "smp"},
            "Left, one attention row for the whole text. Right, for every token, the tokens of its sentence that win "
            "a channel: a block per sentence, and most words win nothing. Choose local maxima for the third range, a "
            "band of three. [CLS] and [SEP] have rows in the left picture only.",
        ),
        Story(
            "Two sentences alike",
            _PONET | {"words": _TWINS, "head": 1, "left": "smp", "right": "likeness"},
            "The first two sentences differ in a sign and a word. Right, a second dark line runs beside the diagonal: "
            "the output of a word is most like that of its twin in the other sentence.",
        ),
        Story(
            "Your own segments",
            _PONET | {"segments": "own", "cuts": "30 43", "left": "lmp", "right": "smp"},
            "Click a picture: the segment border at that token comes or goes. The starts also stand in the field.",
        ),
    ),
    "favit": (
        Story(
            "49 keys, the whole picture",
            {"input": "landscape", "row": 2251, "versus": "windows", "right": "effective"},
            "One pixel of the left house. A window shows it 49 neighbours; 49 fused keys cost the same and reach "
            "every pixel of the picture (the maps below). True attention finds the other house; the fused keys mix "
            "it with all that lies at the same places. Click any pixel, or a fused key to see what it is made of.",
        ),
        Story(
            "Far apart",
            {"input": "landscape", "row": 2251, "dilation": 8, "left": "attention", "right": "effective"},
            "Dilated windows take every eighth pixel: fewer pixels are reached, from farther away. The two grains "
            "and the global group share the channels.",
        ),
    ),
    "formula": (
        Story(
            "A window and the first keys",
            {"formula": "q >= k and (q - k < 64 or k < 4)", "left": "blocks", "right": "allowed"},
            "Blocks are full, partial or empty: only full ones need no mask inside. Change the formula and the block.",
        ),
        Story(
            "Every third token",
            {"formula": "q >= k and (q - k) % 3 == 0", "left": "blocks", "right": "allowed"},
            "A third of the pairs, yet no block is empty: a kernel that works in blocks saves nothing.",
        ),
    ),
}
